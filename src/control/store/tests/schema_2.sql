-- A state as schema 2 has it: the output of .dump, and the header's numbers.
PRAGMA application_id=1380406100;
PRAGMA user_version=2;
PRAGMA foreign_keys=OFF;
BEGIN TRANSACTION;
CREATE TABLE settings (key TEXT PRIMARY KEY, value TEXT NOT NULL, digest BLOB NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO settings VALUES('file_kill','false',X'4d2c0a67b0eb2baff159c1d92deb6f17');
INSERT INTO settings VALUES('floor_epoch','0',X'e98f6e868471e61a4e6643bcb94e19c6');
INSERT INTO settings VALUES('kill','null',X'7b9a474cc098b4d63bf61a6928b58ad4');
INSERT INTO settings VALUES('last_seq','0',X'0b048bc9ccfe422ee17173b3c1e15cf7');
INSERT INTO settings VALUES('mark','6986595612112720918',X'993382a9d9129198eaa3f051d2d3085d');
CREATE TABLE services (name TEXT PRIMARY KEY, state TEXT NOT NULL, digest BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE secrets (name TEXT PRIMARY KEY, secret BLOB NOT NULL, digest BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE events (seq INTEGER PRIMARY KEY, time TEXT NOT NULL, body TEXT NOT NULL) STRICT;
CREATE TABLE outbox (place INTEGER PRIMARY KEY, id TEXT NOT NULL, receiver TEXT NOT NULL, queued_ms INTEGER NOT NULL,
         body TEXT NOT NULL) STRICT;
INSERT INTO outbox VALUES(7,'00ff','c0ffee',1760000000000,'{"type":"step"}');
COMMIT;
