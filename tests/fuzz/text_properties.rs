//! What must hold of a configuration's text and of a cookie for any bytes: shared by the fuzz targets and by the test of
//! their seeds. Each function panics where a property does not hold.

use rollgate::config::{self, Snapshot};
use rollgate::routing::{
    CookieKey, Decision, Facts, HeaderFields, RequestView, ServiceId, ServiceTraffic, Traffic, VersionId, decide,
};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

/// Any bytes give a snapshot or problems, each with a place in the text, in its order.
pub fn config(data: &[u8]) {
    match config::parse_bytes(data, Path::new("/")) {
        Ok(snapshot) => assert_eq!(snapshot.services.len(), snapshot.policy.services.len()),
        Err(problems) => {
            // The YAML reader may stand on the line after the last one when the text ends within a directive.
            let lines = 1 + data.iter().filter(|byte| matches!(byte, b'\n' | b'\r')).count() + 1;
            assert!(!problems.is_empty(), "neither a snapshot nor a problem");
            for problem in &problems {
                assert!((1..=lines).contains(&problem.line) && problem.column >= 1, "{problem}");
                assert!(!problem.message.is_empty());
            }
        }
    }
}

const SERVICE: &str = "
listeners: [{ address: \"127.0.0.1:0\" }]
services:
  - name: shop
    versions: [{ name: v1, pool: { endpoints: [\"127.0.0.1:1\"] } }]
    affinity: { cookie: { name: user, ttl: 1h } }
";
const FRESH: u128 = 7;
const KNOWN: u128 = 8;

struct Moment {
    key: CookieKey,
    id: u128,
}

impl Facts for Moment {
    fn now_s(&self) -> u64 {
        1_000_000
    }
    fn turn(&self, _: ServiceId, _: Option<u32>) -> u64 {
        0
    }
    fn usable(&self, _: ServiceId, _: VersionId) -> bool {
        true
    }
    fn cookie_key(&self) -> &CookieKey {
        &self.key
    }
    fn fresh_id(&self) -> u128 {
        self.id
    }
}

struct Cookies<'a>(&'a [u8]);

impl HeaderFields for Cookies<'_> {
    fn nth(&self, name: &str, n: usize) -> Option<&[u8]> {
        (name == "cookie" && n == 0).then_some(self.0)
    }
}

fn decided(snapshot: &Snapshot, cookies: &[u8], id: u128) -> Decision {
    let services = snapshot.services.iter().map(|service| ServiceTraffic {
        split: service.split.clone(),
        killed: false,
        epoch: 0,
        ring: None,
        mirror: None,
    });
    let traffic = Traffic {
        killed: false,
        services: services.collect(),
    };
    let request = RequestView {
        method: "GET",
        host: "shop.example.com",
        path: "/",
        query: "",
        fields: &Cookies(cookies),
        client_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
        client_cert: None,
    };
    let key = CookieKey::new(&[9; 32]);
    decide(&snapshot.policy, &traffic, &request, &Moment { key, id })
        .decision()
        .expect("the service takes every request")
}

/// Whom the answer's cookie is made for, if it brings one.
fn newcomer(snapshot: &Snapshot, cookies: &[u8]) -> Option<u128> {
    decided(snapshot, cookies, FRESH).set_cookie.map(|cookie| cookie.id)
}

/// No bytes pass for a cookie that was not signed; one that was is known whatever stands after it, and void when a bit of
/// it is another.
pub fn cookie(data: &[u8]) {
    let snapshot = config::parse(SERVICE, Path::new("/")).expect("a valid file");
    let signed = decided(&snapshot, b"", KNOWN)
        .set_cookie
        .expect("a newcomer gets a cookie");
    let signed = signed.value();

    assert_eq!(newcomer(&snapshot, data), Some(FRESH), "forged");
    assert_eq!(newcomer(&snapshot, &[b"user=", data].concat()), Some(FRESH), "forged");
    assert_eq!(
        newcomer(&snapshot, &[b"user=", signed, b"; ", data].concat()),
        None,
        "not known"
    );

    let mut other = signed.to_vec();
    other.iter_mut().zip(data).for_each(|(byte, mask)| *byte ^= mask);
    if other != signed {
        assert_eq!(
            newcomer(&snapshot, &[b"user=", &other[..]].concat()),
            Some(FRESH),
            "altered"
        );
    }
}
