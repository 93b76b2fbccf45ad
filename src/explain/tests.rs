use super::*;
use crate::routing::{
    Affinity, Condition, CookieSpec, Destination, Fallback, HashName, HostPattern, NewPath, Operator, PathPattern,
    Redirect, Role, RouteTable, Rule, ServiceTraffic, Source, Version,
};

fn policy(cookie: Option<CookieSpec>) -> Policy {
    let equals = |name: &str, value: &str| Condition::Test {
        source: Source::Header(name.into()),
        operator: Operator::Equals(value.into()),
    };
    let rule = |name: &str, value: &str, target| Rule {
        name: name.into(),
        when: equals("x-version", value),
        from: None,
        target,
    };
    let version = |name: &str, role| Version {
        name: name.into(),
        role,
    };
    Policy {
        routes: RouteTable::new(vec![Route {
            host: HostPattern::Wildcard("example.com".into()),
            path: PathPattern::Prefix("/checkout".into()),
            methods: ["GET".into(), "POST".into()].into(),
            to: Destination::Service(ServiceId(0)),
        }]),
        segments: [].into(),
        services: [Service {
            name: "checkout".into(),
            versions: [version("v1", Role::Stable), version("v2", Role::Canary)].into(),
            stable: VersionId(0),
            affinity: Some(Affinity {
                key: [KeySource::Header("x-user-id".into())].into(),
                salt: "checkout".into(),
                hash: HashName::Rollgate1,
                keep: cookie.is_some(),
                cookie,
            }),
            rules: [
                rule("forced", "v2", Target::Version(VersionId(1))),
                rule("half", "half", Target::Split(Split::new([1, 1]).unwrap())),
            ]
            .into(),
            fallback: Fallback::Stable,
        }]
        .into(),
    }
}

fn traffic() -> Traffic {
    let split = Split::new([2, 1]).unwrap();
    Traffic {
        killed: false,
        services: [ServiceTraffic {
            split,
            killed: false,
            epoch: 0,
            ring: None,
            mirror: None,
        }]
        .into(),
    }
}

fn ask(
    policy: &Policy,
    traffic: &Traffic,
    target: &str,
    headers: &[(&str, &str)],
) -> Result<Explanation, ExplainError> {
    ask_with(policy, traffic, target, headers, false, &assumed())
}

fn assumed() -> Assume {
    Assume {
        now_s: 0,
        turn: 0,
        fresh_id: 5,
        cookie_key: CookieKey::new(&[0; 32]),
    }
}

fn ask_with(
    policy: &Policy,
    traffic: &Traffic,
    target: &str,
    headers: &[(&str, &str)],
    knows_health: bool,
    facts: &dyn Facts,
) -> Result<Explanation, ExplainError> {
    let described = Described {
        method: "GET".to_owned(),
        subject: Subject::parse(policy, target)?,
        headers: headers
            .iter()
            .map(|&(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
        client_ip: "192.0.2.7".parse().unwrap(),
        client_cert: None,
    };
    explain(policy, traffic, &described, Moment { facts, knows_health })
}

fn lines(target: &str, headers: &[(&str, &str)]) -> String {
    ask(&policy(None), &traffic(), target, headers)
        .unwrap()
        .lines()
        .join("\n")
}

#[test]
fn a_user_by_url() {
    assert_eq!(
        lines(
            "http://shop.example.com:8080/checkout/pay?x=1",
            &[("X-User-Id", "alice")]
        ),
        "service  checkout\n\
         route    host *.example.com, path_prefix /checkout, methods GET POST\n\
         version  v1\n\
         reason   bucket\n\
         bucket   74783 of 0..100000\n\
         share    66.667 %\n\
         split    v1 66.667 %, v2 33.333 %\n\
         note     key: header x-user-id; hash rollgate-1, salt \"checkout\""
    );
}

#[test]
fn nobody_by_name() {
    assert_eq!(
        lines("checkout", &[]),
        "service  checkout\n\
         version  v1\n\
         reason   weight\n\
         share    66.667 %\n\
         split    v1 66.667 %, v2 33.333 %\n\
         note     the request has no affinity key, so it goes by weight: the split says how many of such requests \
         each version gets; shown is turn 0"
    );
}

#[test]
fn rules() {
    let forced = ask(&policy(None), &traffic(), "checkout", &[("x-version", "v2")]).unwrap();
    assert_eq!(
        (forced.reason.as_deref(), forced.rule.as_deref()),
        (Some("rule:forced"), Some("forced"))
    );
    assert_eq!(
        (forced.version.as_deref(), forced.share, forced.shares.len()),
        (Some("v2"), None, 0)
    );
    let half = ask(
        &policy(None),
        &traffic(),
        "checkout",
        &[("x-version", "half"), ("x-user-id", "alice")],
    )
    .unwrap();
    assert_eq!((half.reason.as_deref(), half.share), (Some("rule:half"), Some(50.0)));
    assert_eq!(half.bucket, Some(74_783));
}

#[test]
fn who_gets_a_cookie_is_told_so() {
    let spec = CookieSpec {
        name: "rollgate".into(),
        ttl_s: 60,
    };
    let live = Traffic {
        services: [ServiceTraffic {
            split: Split::new([0, 1]).unwrap(),
            ..traffic().services[0].clone()
        }]
        .into(),
        ..traffic()
    };
    let new = ask(&policy(Some(spec)), &live, "checkout", &[]).unwrap();
    let notes = new.notes.join("\n");
    for part in [
        "random id",
        "id of the signed cookie",
        "keeps the user",
        "usable endpoint",
    ] {
        assert!(notes.contains(part), "{notes}");
    }
}

#[test]
fn the_kill_switch_is_named() {
    for (all, whose) in [(true, "all services"), (false, "the service")] {
        let mut live = traffic();
        live.killed = all;
        live.services[0].killed = true;
        let killed = ask(&policy(None), &live, "checkout", &[("x-version", "v2")]).unwrap();
        assert_eq!(
            (killed.version.as_deref(), killed.reason.as_deref()),
            (Some("v1"), Some("killed"))
        );
        assert!(
            killed.notes.iter().any(|note| note.contains(whose)),
            "{:?}",
            killed.notes
        );
    }
}

#[test]
fn targets() {
    for (target, host, found) in [
        ("a.example.com/checkout", None, true),
        ("https://a.example.com/checkout?x", None, true),
        ("/checkout", Some("a.example.com:8443"), true),
        ("/checkout", Some("A.EXAMPLE.COM"), true),
        ("/checkout", None, false),
        ("a.example.com", None, false),
    ] {
        let headers: Vec<_> = host.map(|host| ("Host", host)).into_iter().collect();
        let answer = ask(&policy(None), &traffic(), target, &headers).unwrap();
        assert_eq!(answer.service.is_some(), found, "{target}");
        assert_eq!(answer.notes.iter().any(|note| note.contains("404")), !found, "{target}");
    }
    let misspelt = ask(&policy(None), &traffic(), "chekout", &[]).unwrap_err();
    assert_eq!(
        misspelt.to_string(),
        "no service is called \"chekout\"; did you mean \"checkout\"?"
    );
    let unlike = ask(&policy(None), &traffic(), "zzz", &[]).unwrap_err();
    assert_eq!(unlike.to_string(), "no service is called \"zzz\"");
    for url in ["http://", "a b.example/", "http://[::1/"] {
        assert!(
            matches!(
                ask(&policy(None), &traffic(), url, &[]),
                Err(ExplainError::BadUrl { .. })
            ),
            "{url}"
        );
    }
}

#[test]
fn as_json() {
    let answer = ask(&policy(None), &traffic(), "checkout", &[("x-user-id", "alice")]).unwrap();
    let json = serde_json::to_value(answer).unwrap();
    assert_eq!(json["bucket"], 74_783);
    assert_eq!(json["rule"], serde_json::Value::Null);
    assert_eq!(json["shares"][1]["version"], "v2");
}

/// Facts of a proxy whose canaries are down.
struct CanaryDown(Assume);

impl Facts for CanaryDown {
    fn now_s(&self) -> u64 {
        self.0.now_s()
    }

    fn turn(&self, _: ServiceId, _: Option<u32>) -> u64 {
        41
    }

    fn usable(&self, _: ServiceId, version: VersionId) -> bool {
        version == VersionId(0)
    }

    fn cookie_key(&self) -> &CookieKey {
        self.0.cookie_key()
    }

    fn fresh_id(&self) -> u128 {
        self.0.fresh_id()
    }
}

#[test]
fn what_a_running_proxy_knows_is_not_assumed() {
    let down = CanaryDown(assumed());
    let forced = [("x-version", "v2")];
    let ask = |policy: &Policy| ask_with(policy, &traffic(), "checkout", &forced, true, &down).unwrap();
    let moved = ask(&policy(None));
    assert_eq!(
        (moved.version.as_deref(), moved.reason.as_deref()),
        (Some("v1"), Some("fallback"))
    );
    assert_eq!(moved.notes, ["v2 was chosen and has no usable endpoint: v1 serves"]);
    let mut strict = policy(None);
    strict.services[0].fallback = Fallback::Fail;
    let refused = ask(&strict);
    assert_eq!(refused.version, None);
    assert!(refused.notes[0].ends_with("the answer is 503"), "{:?}", refused.notes);
    let nobody = ask_with(&policy(None), &traffic(), "checkout", &[], true, &down).unwrap();
    assert!(nobody.notes[0].ends_with("shown is turn 41"), "{:?}", nobody.notes);
}

#[test]
fn a_route_that_answers_by_itself() {
    let answer = |answer| Route {
        host: HostPattern::Any,
        path: PathPattern::Prefix("/old".into()),
        methods: [].into(),
        to: Destination::Answer(Box::new(answer)),
    };
    let redirect = Redirect {
        status: 301,
        scheme: Some(Scheme::Https),
        host: None,
        port: None,
        path: NewPath::Whole("/new".into()),
    };
    let routes = RouteTable::new(vec![answer(RouteAnswer::Redirect(redirect))]);
    let policy = Policy { routes, ..policy(None) };
    let told = ask(&policy, &traffic(), "http://a.example/old/x?q", &[])
        .unwrap()
        .lines()
        .join("\n");
    assert_eq!(
        told,
        "route    any host, path_prefix /old\n\
         note     no service is asked: the route itself answers (redirect 301 to https://a.example/new?q)"
    );
}
