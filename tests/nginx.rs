//! What the project is for: rollgate in front of two real nginx, a weight edited in the file, the split moves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use support::{Config, Gate, Nginx, PATIENCE, Service, Write, eventually};

struct Shop {
    v1: Nginx,
    v2: Nginx,
    gate: Gate,
}

impl Shop {
    fn new(weight1: u32, weight2: u32) -> Self {
        let (v1, v2) = (Nginx::named("v1"), Nginx::named("v2"));
        let gate = Gate::start(&text(&v1, &v2, weight1, weight2));
        Self { v1, v2, gate }
    }

    fn canary_of(&self, requests: usize) -> usize {
        let mut client = self.gate.client();
        let serve = |client: &mut support::Client| {
            let response = client.get("/", &[]);
            assert_eq!(response.status, 200);
            response.served_by() == "v2"
        };
        (0..requests).filter(|_| serve(&mut client)).count()
    }
}

fn text(v1: &Nginx, v2: &Nginx, weight1: u32, weight2: u32) -> String {
    let service = Service::split(v1.port(), weight1, v2.port(), weight2).pools("health_check: { path: / }");
    Config::with(service).text()
}

#[test]
fn a_weight_edited_in_the_file_moves_the_split_without_a_failed_request() {
    let shop = Shop::new(95, 5);
    let canary = shop.canary_of(2000);
    assert!((97..=103).contains(&canary), "{canary} of 2000 at 5 %");
    let stop = AtomicBool::new(false);
    let served = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = shop.gate.client();
                while !stop.load(Ordering::Relaxed) {
                    assert_eq!(client.get("/", &[]).status, 200);
                    served.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for (round, share) in [10, 25, 50, 75, 100, 0, 30].into_iter().enumerate() {
            let how = [Write::Rename, Write::InPlace][round % 2];
            shop.gate
                .write_config(&text(&shop.v1, &shop.v2, 100 - share, share), how);
            eventually(Duration::from_secs(2), "the new share", || {
                let target = shop.gate.metric("rollgate_version_share_target", &[("version", "v2")]);
                (target - f64::from(share)).abs() < 1e-6 || (target * 100.0 - f64::from(share)).abs() < 1e-6
            });
            let before = served.load(Ordering::Relaxed);
            eventually(PATIENCE, "it is served by", || {
                served.load(Ordering::Relaxed) > before + 100
            });
        }
        stop.store(true, Ordering::Relaxed);
    });
    let canary = shop.canary_of(1000);
    assert!((297..=303).contains(&canary), "{canary} of 1000 at 30 %");
    assert_eq!(shop.gate.metric("rollgate_request_failures_total", &[]), 0.0);
    assert!(shop.v1.served() > 0 && shop.v2.served() > 0);
}

#[test]
fn files_ranges_conditions_and_uploads_pass_through_nginx() {
    let shop = Shop::new(1, 0);
    let content: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    shop.v1.put_file("large.bin", &content);
    let mut client = shop.gate.client();
    let whole = client.get("/files/large.bin", &[]);
    assert!(whole.body == content, "{} bytes of {}", whole.body.len(), content.len());
    let part = client.get("/files/large.bin", &[("range", "bytes=1000-1999")]);
    assert_eq!((part.status, part.body.as_slice()), (206, &content[1000..2000]));
    let etag = whole.header("etag").unwrap();
    let unchanged = client.get("/files/large.bin", &[("if-none-match", etag)]);
    assert_eq!((unchanged.status, unchanged.body.len()), (304, 0));
    let head = client.request("HEAD", "/files/large.bin", &[], b"");
    assert_eq!(head.header("content-length"), Some("3000000"));
    assert_eq!(client.get("/files/missing", &[]).status, 404);
    // nginx may answer before it has read the body; the connection then ends with the answer.
    assert_eq!(client.request("POST", "/", &[], &content).status, 200);
    assert_eq!(shop.gate.get("/", &[]).served_by(), "v1");
}

/// nginx does not compress for what comes from a proxy, as it goes by `Via`, unless `gzip_proxied` says so.
#[test]
fn what_nginx_compresses_it_compresses_behind_a_proxy_too() {
    let shop = Shop::new(1, 0);
    shop.v1.put_file("page", &b"many words ".repeat(1000));
    let asked = [("accept-encoding", "gzip")];
    let pressed = shop.gate.get("/gzip/page", &asked);
    assert_eq!(
        (pressed.status, pressed.header("content-encoding")),
        (200, Some("gzip"))
    );
    assert!(pressed.body.len() < 1000 && pressed.body.starts_with(&[0x1f, 0x8b]));

    let told = format!("via: true\n{}", text(&shop.v1, &shop.v2, 1, 0));
    shop.gate.write_config(&told, Write::Rename);
    eventually(Duration::from_secs(10), "nginx is told of the proxy", || {
        let plain = shop.gate.get("/gzip/page", &asked);
        plain.header("content-encoding").is_none() && plain.body.len() == 11_000
    });
}

#[test]
fn an_nginx_that_dies_is_replaced_by_stable() {
    let (v1, v2) = (Nginx::named("v1"), Nginx::named("v2"));
    let gate = Gate::start(&text(&v1, &v2, 50, 50));
    drop(v2);
    eventually(Duration::from_secs(10), "every request is served by stable", || {
        (0..20).all(|_| gate.get("/", &[]).served_by() == "v1")
    });
}
