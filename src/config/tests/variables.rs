//! Variables where they have no meaning, and redirects that lead back.

use super::*;

/// The paths of what is wrong with these routes.
fn wrong(routes: &str) -> Vec<String> {
    let problems = parsed(&with_top(&format!("routes: [{routes}]\n")))
        .err()
        .unwrap_or_default();
    problems.into_iter().map(|problem| problem.path).collect()
}

/// The paths of what is warned of.
fn warned(text: &str) -> Vec<String> {
    let warnings = valid(text).unsupported;
    warnings.iter().map(|warning| warning.path.clone()).collect()
}

#[test]
fn variables_belong_to_header_rules() {
    for redirect in ["path: \"/u/${host}\"", "path_prefix: \"/${scheme}\""] {
        let wrong = wrong(&format!("{{ path_prefix: /a, redirect: {{ {redirect} }} }}"));
        assert_eq!(wrong.len(), 1, "{redirect}: {wrong:?}");
    }
    let body = |body: &str| with_top(&format!("routes: [{{ path: /a, respond: {{ body: \"{body}\" }} }}]\n"));
    assert_eq!(warned(&body("you are ${client_ip}")), ["routes[0].respond.body"]);
    assert!(warned(&body("`${name}` and ${ host } of a script, $5")).is_empty());
}

#[test]
fn a_variable_without_its_braces_is_warned_of() {
    let rules = |value: &str| with_service(&format!("    request_headers: {{ set: {{ x-a: \"{value}\" }} }}\n"));
    for value in ["$host", "a $client_ip, b", "$service/$x"] {
        assert_eq!(
            warned(&rules(value)),
            ["services[0].request_headers.set.x-a"],
            "{value}"
        );
    }
    for value in ["${host}", "$5", "$hosts", "$", "$other host"] {
        assert!(warned(&rules(value)).is_empty(), "{value}");
    }
}

#[test]
fn a_redirect_to_itself_is_refused() {
    for route in [
        "{ path: /a, redirect: { path: /a } }",
        "{ path: /a, methods: [GET, POST], redirect: { path: /a, status: 301 } }",
        "{ path: /a, methods: [POST], redirect: { path: /a, status: 307 } }",
        "{ path_prefix: /a, redirect: { path_prefix: /a/ } }",
    ] {
        assert_eq!(wrong(route).len(), 1, "{route}");
    }
    for route in [
        "{ path: /a, redirect: { path: /b } }",
        "{ path: /a, redirect: { path: /a, host: b.example } }",
        "{ path: /a, redirect: { path: /a, scheme: https } }",
        "{ path: /a, redirect: { path: /a, port: 8443 } }",
        // Asked for by GET afterwards.
        "{ path: /a, methods: [POST], redirect: { path: /a } }",
        // What is more precise comes first.
        "{ path_prefix: /a, redirect: { path: /a/b } }, { path: /a/b, respond: {} }",
    ] {
        assert_eq!(wrong(route), [""; 0], "{route}");
    }
}
