use super::*;
use crate::config::snapshot::{CertificateFiles, ClientCertificates, TlsVersion};
use rcgen::{CertificateParams, KeyPair};
use std::path::Path;
use tempfile::TempDir;

/// A directory of certificates.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn pair(&self, name: &str) -> CertificateFiles {
        CertificateFiles {
            cert: self.0.path().join(format!("{name}.pem")),
            key: self.0.path().join(format!("{name}.key")),
        }
    }

    /// Writes a new certificate for `host`, beside and renamed over.
    fn write(&self, name: &str, host: &str) {
        let files = self.pair(name);
        let key = KeyPair::generate().unwrap();
        let cert = CertificateParams::new(vec![host.to_owned()]).unwrap();
        replace(&files.key, &key.serialize_pem());
        replace(&files.cert, &cert.self_signed(&key).unwrap().pem());
    }

    fn listener(&self, names: &[&str]) -> ListenerTls {
        ListenerTls {
            certificates: names.iter().map(|name| self.pair(name)).collect(),
            clients: None,
            min_version: TlsVersion::V1_2,
        }
    }
}

fn replace(file: &Path, text: &str) {
    let other = file.with_extension("new");
    std::fs::write(&other, text).unwrap();
    std::fs::rename(other, file).unwrap();
}

/// A snapshot that names the files of `spec`.
fn snapshot(spec: &ListenerTls) -> Snapshot {
    let pairs: Vec<String> = spec
        .certificates
        .iter()
        .map(|files| format!("{{ cert: {}, key: {} }}", files.cert.display(), files.key.display()))
        .collect();
    let client_ca = spec.clients.as_ref();
    let client_ca = client_ca.map_or(String::new(), |clients| {
        format!(", client_ca: {}", clients.ca.display())
    });
    let text = format!(
        "listeners: [{{ address: \"127.0.0.1:0\", tls: {{ certificates: [{}]{client_ca} }} }}]\nservices:\n  - name: s\n    \
         versions: [{{ name: v1, pool: {{ endpoints: [\"127.0.0.1:1\"] }} }}]\n",
        pairs.join(", ")
    );
    crate::config::parse(&text, Path::new("")).unwrap()
}

fn names(files: &TlsFiles) -> Vec<String> {
    files.status().iter().flat_map(|status| status.names.to_vec()).collect()
}

fn error(files: &TlsFiles) -> Option<String> {
    files
        .status()
        .iter()
        .find_map(|status| status.error.as_deref().map(str::to_owned))
}

#[test]
fn a_changed_pair_is_in_use_once_it_has_rested_for_a_look() {
    let directory = Files::new();
    directory.write("a", "one.test");
    let (files, spec) = (TlsFiles::default(), directory.listener(&["a"]));
    assert!(files.prepare(&snapshot(&spec)).is_empty());
    let tls = files.listener(&spec, None);
    let first = tls.load().unwrap();
    files.look();
    assert!(Arc::ptr_eq(&tls.load().unwrap(), &first), "nothing has changed");

    directory.write("a", "two.test");
    files.look();
    assert_eq!(names(&files), ["one.test"], "it may still be on the move");
    files.look();
    assert_eq!(names(&files), ["two.test"]);
    let second = tls.load().unwrap();
    assert!(!Arc::ptr_eq(&second, &first));
    assert!(Arc::ptr_eq(&second.ticketer, &first.ticketer), "sessions go on");
}

#[test]
fn a_pair_that_is_wrong_leaves_the_old_one_in_use() {
    let directory = Files::new();
    directory.write("a", "one.test");
    directory.write("b", "other.test");
    let (files, spec) = (TlsFiles::default(), directory.listener(&["a"]));
    files.prepare(&snapshot(&spec));
    let tls = files.listener(&spec, None);
    let good = tls.load().unwrap();
    let (a, b) = (directory.pair("a"), directory.pair("b"));
    let key = std::fs::read_to_string(&a.key).unwrap();
    for (what, wrong) in [
        (
            "does not belong to the certificate",
            std::fs::read_to_string(&b.key).unwrap(),
        ),
        ("no private key in it", String::new()),
        ("broken PEM", key[..60].to_owned()),
    ] {
        let before = error(&files);
        replace(&a.key, &wrong);
        files.look();
        assert_eq!(error(&files), before, "not judged yet");
        files.look();
        let told = error(&files).unwrap();
        assert!(told.contains(what) && told.contains("a.key"), "{told}");
        assert!(Arc::ptr_eq(&tls.load().unwrap(), &good));
        assert_eq!(names(&files), ["one.test"]);
    }
    std::fs::remove_file(&a.key).unwrap();
    files.look();
    files.look();
    assert!(error(&files).unwrap().contains("No such file"));
    replace(&a.key, &key);
    files.look();
    files.look();
    assert_eq!(error(&files), None, "well again");
}

#[test]
fn links_that_are_swapped_are_seen_as_one_change() {
    let directory = Files::new();
    let at = directory.0.path();
    for (version, host) in [("v1", "one.test"), ("v2", "two.test")] {
        std::fs::create_dir(at.join(version)).unwrap();
        directory.write(&format!("{version}/a"), host);
    }
    let link = |version: &str| {
        let other = at.join("data.new");
        std::os::unix::fs::symlink(version, &other).unwrap();
        std::fs::rename(other, at.join("..data")).unwrap();
    };
    link("v1");
    // As Kubernetes lays a secret out.
    for name in ["a.pem", "a.key"] {
        std::os::unix::fs::symlink(Path::new("..data").join(name), at.join(name)).unwrap();
    }
    let (files, spec) = (TlsFiles::default(), directory.listener(&["a"]));
    assert!(files.prepare(&snapshot(&spec)).is_empty());
    let _tls = files.listener(&spec, None);
    link("v2");
    files.look();
    files.look();
    assert_eq!((names(&files), error(&files)), (vec!["two.test".to_owned()], None));
}

#[test]
fn what_is_in_use_does_not_stand_against_a_new_configuration() {
    let directory = Files::new();
    directory.write("a", "one.test");
    let (files, spec) = (TlsFiles::default(), directory.listener(&["a"]));
    files.prepare(&snapshot(&spec));
    let tls = files.listener(&spec, None);
    std::fs::write(directory.pair("a").cert, "broken").unwrap();
    assert!(files.prepare(&snapshot(&spec)).is_empty());
    let more = directory.listener(&["a", "b"]);
    let unusable = files.prepare(&snapshot(&more));
    assert_eq!(unusable.len(), 1, "what is new has to be right");
    assert!(unusable[0].missing && unusable[0].file.ends_with("b.pem"));
    directory.write("b", "two.test");
    assert!(files.prepare(&snapshot(&more)).is_empty());
    let next = files.listener(&more, Some((&spec, &tls)));
    assert!(Arc::ptr_eq(
        &next.load().unwrap().ticketer,
        &tls.load().unwrap().ticketer
    ));
    assert_eq!(names(&files), ["one.test", "two.test"]);
}

#[test]
fn listeners_and_pools_that_do_not_change_keep_what_they_have() {
    let directory = Files::new();
    directory.write("a", "one.test");
    let (files, spec) = (TlsFiles::default(), directory.listener(&["a"]));
    files.prepare(&snapshot(&spec));
    let tls = files.listener(&spec, None);
    assert!(Arc::ptr_eq(&tls, &files.listener(&spec.clone(), Some((&spec, &tls)))));
    let pool = PoolTls {
        sni: None,
        ca: None,
        verify: false,
        http2: false,
        client: None,
    };
    let first = files.pool(&pool);
    assert!(Arc::ptr_eq(&first, &files.pool(&pool)));
    let other = PoolTls {
        client: Some(directory.pair("a")),
        ..pool
    };
    assert!(!Arc::ptr_eq(&first, &files.pool(&other)));
}

#[test]
fn other_authorities_of_clients_end_their_sessions_and_a_new_edition_those_of_endpoints() {
    let directory = Files::new();
    for name in ["a", "ca"] {
        directory.write(name, "one.test");
    }
    let ca = directory.pair("ca").cert;
    let spec = ListenerTls {
        clients: Some(ClientCertificates {
            ca: ca.clone(),
            required: true,
        }),
        ..directory.listener(&["a"])
    };
    let files = TlsFiles::default();
    assert!(files.prepare(&snapshot(&spec)).is_empty());
    let tls = files.listener(&spec, None);
    let pool = files.pool(&PoolTls {
        sni: None,
        ca: Some(ca),
        verify: true,
        http2: false,
        client: None,
    });
    assert!(pool.load().0.is_some());
    let (before, edition) = (tls.load().unwrap(), pool.edition());
    directory.write("ca", "two.test");
    files.look();
    files.look();
    assert!(!Arc::ptr_eq(&tls.load().unwrap().ticketer, &before.ticketer));
    assert_eq!(pool.edition(), edition + 1);
}

#[test]
fn what_nothing_uses_is_forgotten_after_a_while() {
    let directory = Files::new();
    directory.write("a", "one.test");
    let (files, spec) = (TlsFiles::default(), directory.listener(&["a"]));
    files.prepare(&snapshot(&spec));
    (0..FORGOTTEN_AFTER - 1).for_each(|_| files.look());
    assert_eq!(files.inner().inventory.0.len(), 1, "it may still come into force");
    let tls = files.listener(&spec, None);
    files.look();
    drop(tls);
    assert!(files.status().is_empty(), "nobody is told of what is not in use");
    (0..FORGOTTEN_AFTER).for_each(|_| files.look());
    assert!(files.inner().inventory.0.is_empty() && files.inner().servers.is_empty());
}

#[test]
fn without_what_it_needs_nobody_can_connect() {
    let directory = Files::new();
    let files = TlsFiles::default();
    let spec = ListenerTls {
        clients: Some(ClientCertificates {
            ca: directory.pair("ca").cert,
            required: true,
        }),
        ..directory.listener(&["a"])
    };
    assert!(
        files.listener(&spec, None).load().is_none(),
        "no authorities: nobody is let in"
    );
    let pool = files.pool(&PoolTls {
        sni: None,
        ca: Some(directory.pair("ca").cert),
        verify: true,
        http2: false,
        client: None,
    });
    assert!(pool.load().0.is_none(), "no authorities: nothing is sent");
}

#[test]
fn of_a_file_that_is_used_more_than_once_the_worst_is_told_in_any_order() {
    let of = |file: &str, names: &[&str], expires_s: Option<i64>, error: Option<&str>| CertificateStatus {
        file: file.into(),
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        begins_s: expires_s.map(|expires_s| expires_s - 10),
        expires_s,
        error: error.map(Into::into),
    };
    let all = [
        of("a", &["shop.test"], Some(100), None),
        of("a", &[], Some(50), None),
        of("a", &[], None, Some("the key is broken")),
        of("a", &[], None, Some("the key is lost")),
        of("b", &[], None, None),
    ];
    let expected = CertificateStatus {
        begins_s: Some(90),
        ..of("a", &["shop.test"], Some(50), Some("the key is broken"))
    };
    for turn in 0..all.len() {
        let mut turned = all.to_vec();
        turned.rotate_left(turn);
        for order in [turned.clone(), turned.into_iter().rev().collect()] {
            assert_eq!(*worst_by_file(order), [expected.clone(), all[4].clone()]);
        }
    }
}

#[test]
fn one_certificate_with_two_keys_is_told_of_as_the_worse_of_them() {
    let directory = Files::new();
    directory.write("a", "one.test");
    directory.write("b", "other.test");
    let (a, b) = (directory.pair("a"), directory.pair("b"));
    let second = a.key.with_file_name("second.key");
    std::fs::copy(&a.key, &second).unwrap();
    let mut spec = directory.listener(&["a"]);
    let twice = CertificateFiles {
        cert: a.cert,
        key: second.clone(),
    };
    spec.certificates = [&*spec.certificates, &[twice]].concat().into();
    let files = TlsFiles::default();
    assert!(files.prepare(&snapshot(&spec)).is_empty());
    let _tls = files.listener(&spec, None);
    replace(&second, &std::fs::read_to_string(&b.key).unwrap());
    files.look();
    files.look();
    for _ in 0..20 {
        assert!(error(&files).unwrap().contains("second.key"));
        assert_eq!(files.status().len(), 1);
    }
}

#[test]
fn files_that_are_only_touched_change_nothing() {
    let directory = Files::new();
    directory.write("a", "one.test");
    let mut spec = directory.listener(&["a"]);
    spec.clients = Some(ClientCertificates {
        ca: directory.pair("a").cert,
        required: true,
    });
    let files = TlsFiles::default();
    assert!(files.prepare(&snapshot(&spec)).is_empty());
    let tls = files.listener(&spec, None);
    let before = tls.load().unwrap();
    let cert = directory.pair("a").cert;
    replace(&cert, &std::fs::read_to_string(&cert).unwrap());
    for _ in 0..3 {
        files.look();
    }
    assert!(Arc::ptr_eq(&tls.load().unwrap(), &before));
    directory.write("a", "two.test");
    files.look();
    files.look();
    assert!(!Arc::ptr_eq(&tls.load().unwrap(), &before));
    assert_eq!(names(&files), ["two.test"]);
}
