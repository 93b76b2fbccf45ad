-- A state as schema 1 has it: the output of .dump, and the header's numbers.
PRAGMA application_id=1380406100;
PRAGMA user_version=1;
PRAGMA foreign_keys=OFF;
BEGIN TRANSACTION;
CREATE TABLE settings (key TEXT PRIMARY KEY, value TEXT NOT NULL, digest BLOB NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO settings VALUES('file_kill','true',X'f03e6501c42dfd16ddd7829756ac019c');
INSERT INTO settings VALUES('floor_epoch','4000000000',X'328b0db80bf1ca576f388a2b6d0daa41');
INSERT INTO settings VALUES('kill','{"by":{"who":"eve","from":"unix","at_ms":1,"reason":"because"}}',X'414f60e2d5646399726348d5121597f3');
INSERT INTO settings VALUES('last_seq','1',X'be7ecf0546d6c312781a5bc5c44d110e');
INSERT INTO settings VALUES('mark','6986595612112720918',X'993382a9d9129198eaa3f051d2d3085d');
CREATE TABLE services (name TEXT PRIMARY KEY, state TEXT NOT NULL, digest BLOB NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO services VALUES('cart','{"file":{"versions":[{"name":"v1","role":"stable","weight":95},{"name":"v2","role":"canary","weight":5}]},"file_kill":true,"epoch":3,"kill":{"by":{"who":"eve","from":"unix","at_ms":1,"reason":"because"}}}',X'060fffed7f4598ec53ab5b65758cf6bd');
INSERT INTO services VALUES('shop','{"file":{"versions":[{"name":"v1","role":"stable","weight":95},{"name":"v2","role":"canary","weight":5}]},"file_kill":false,"epoch":3,"set":{"weights":{"v1":100,"v2":7},"by":{"who":"ada","from":"unix","at_ms":1,"reason":"because"}}}',X'b34dcb6c3c9833ac44e0c04a2e04c3da');
CREATE TABLE secrets (name TEXT PRIMARY KEY, secret BLOB NOT NULL, digest BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE events (seq INTEGER PRIMARY KEY, time TEXT NOT NULL, body TEXT NOT NULL) STRICT;
INSERT INTO events VALUES(1,'2025-10-09T08:53:20.000Z','{"seq":1,"time":"2025-10-09T08:53:20.000Z","type":"weights","service":"shop","who":"ada","from":"unix","reason":"because","before":{"weights":{"v1":95,"v2":5}},"after":{"weights":{"v1":100,"v2":7}},"text":"shop: v1=100 v2=7 (was v1=95 v2=5)","generation":2,"evidence":null}');
COMMIT;
