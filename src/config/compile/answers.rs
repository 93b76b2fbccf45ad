//! What routes answer that lead to no service.

use super::rewrite::written_variable;
use super::{Context, text};
use crate::config::decode::List;
use crate::config::problem::{Path, shown};
use crate::config::schema;
use crate::routing::{NewPath, Redirect, Respond, RouteAnswer, Scheme};

impl Context<'_> {
    pub(super) fn route_answer(&mut self, route: &schema::AnswerRoute, path: &Path<'_>) -> Option<RouteAnswer> {
        match (&route.redirect, &route.respond) {
            (Some(redirect), None) => {
                let answer = self.redirect(redirect, route, &path.key("redirect"));
                answer.map(RouteAnswer::Redirect)
            }
            (None, Some(respond)) => self.respond(respond, &path.key("respond")).map(RouteAnswer::Respond),
            (Some(_), Some(_)) => {
                self.problems
                    .add(path, "`redirect` and `respond` are given: expected only one of them");
                None
            }
            (None, None) => {
                if !self.problems.any_below(&path.key("redirect")) && !self.problems.any_below(&path.key("respond")) {
                    self.problems.add(
                        path,
                        "what the route answers is missing: expected `redirect` or `respond`",
                    );
                }
                None
            }
        }
    }

    fn redirect(
        &mut self,
        redirect: &schema::Redirect,
        route: &schema::AnswerRoute,
        path: &Path<'_>,
    ) -> Option<Redirect> {
        let elsewhere = redirect.scheme.is_some() || redirect.host.is_some() || redirect.port.is_some();
        let moved = redirect.path.is_some() || redirect.path_prefix.is_some();
        if !elsewhere && !moved && !self.problems.any_below(path) {
            let message =
                "leads back to where the client came from: expected `scheme`, `host`, `port`, `path` or `path_prefix`";
            self.problems.add(path, message);
            return None;
        }
        let host = match redirect.host.as_deref() {
            None => Some(None),
            Some(host) if text::is_host_name(host) || text::is_bracketed_v6(host) => Some(Some(host.into())),
            Some(host) => {
                let message = format!("expected a host without scheme and port, found {}", shown(host));
                self.problems.add(&path.key("host"), message);
                None
            }
        };
        let new_path = self.new_path(redirect, route, path);
        Some(Redirect {
            status: match redirect.status {
                schema::RedirectStatus::S301 => 301,
                schema::RedirectStatus::S302 => 302,
                schema::RedirectStatus::S307 => 307,
                schema::RedirectStatus::S308 => 308,
            },
            scheme: redirect.scheme.map(|scheme| match scheme {
                schema::Scheme::Http => Scheme::Http,
                schema::Scheme::Https => Scheme::Https,
            }),
            host: host?,
            port: redirect.port.and_then(|port| u16::try_from(port.0).ok()),
            path: new_path?,
        })
    }

    fn new_path(
        &mut self,
        redirect: &schema::Redirect,
        route: &schema::AnswerRoute,
        path: &Path<'_>,
    ) -> Option<NewPath> {
        match (&redirect.path, &redirect.path_prefix, &route.path_prefix) {
            (None, None, _) => Some(NewPath::Same),
            (Some(whole), None, _) => {
                let here = path.key("path");
                let whole = self.new_place(whole, &here)?;
                if route.path.as_deref() == Some(whole) && comes_again(redirect, route) {
                    self.leads_back(&here);
                    return None;
                }
                Some(NewPath::Whole(whole.into()))
            }
            (None, Some(to), Some(from)) => {
                let here = path.key("path_prefix");
                let to = self.new_place(to, &here)?.trim_end_matches('/');
                let from = from.trim_end_matches('/');
                if from == to && comes_again(redirect, route) {
                    self.leads_back(&here);
                    return None;
                }
                Some(NewPath::Prefix {
                    from: from.into(),
                    to: to.into(),
                })
            }
            (None, Some(_), None) => {
                let message = "the route has no `path_prefix` that it could stand in place of: expected `path`";
                self.problems.add(&path.key("path_prefix"), message);
                None
            }
            (Some(_), Some(_), _) => {
                self.problems
                    .add(path, "`path` and `path_prefix` are given: expected only one of them");
                None
            }
        }
    }

    /// A path to send clients to.
    fn new_place<'t>(&mut self, written: &'t str, path: &Path<'_>) -> Option<&'t str> {
        if let Some(variable) = written_variable(written) {
            let message = format!("variables have no meaning here: clients would be sent to `{variable}` as it stands");
            self.problems.add(path, message);
            return None;
        }
        self.any_path(written, path)
    }

    fn leads_back(&mut self, path: &Path<'_>) {
        let message = "leads back to where the client came from, for ever: expected another path";
        self.problems.add(path, message);
    }

    fn respond(&mut self, respond: &schema::Respond, path: &Path<'_>) -> Option<Respond> {
        let status = u16::try_from(respond.status.0).ok()?;
        let body = respond.body.as_deref().unwrap_or_default();
        if matches!(status, 204 | 205 | 304) && !body.is_empty() {
            let message = format!("an answer of status {status} has no body");
            self.problems.add(&path.key("body"), message);
            return None;
        }
        if let Some(variable) = written_variable(body) {
            let message = format!("variables have no meaning here: `{variable}` is sent as it stands");
            self.warn(&path.key("body"), message);
        }
        let content_type = respond.content_type.as_str();
        let visible = content_type.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        if !visible || !content_type.contains('/') || content_type.trim() != content_type {
            let message = format!(
                "expected a media type such as `text/html`, found {}",
                shown(content_type)
            );
            self.problems.add(&path.key("content_type"), message);
            return None;
        }
        Some(Respond {
            status,
            content_type: content_type.into(),
            body: body.into(),
        })
    }
}

/// Whether a client that is sent to the path it asked for comes to this route again. It may come with GET after another method
/// (RFC 9110 section 15.4).
fn comes_again(redirect: &schema::Redirect, route: &schema::AnswerRoute) -> bool {
    let elsewhere = redirect.scheme.is_some() || redirect.host.is_some() || redirect.port.is_some();
    let keeps_method = matches!(
        redirect.status,
        schema::RedirectStatus::S307 | schema::RedirectStatus::S308
    );
    let takes_get = |methods: &List<String>| methods.iter().any(|(_, method)| method == "GET");
    !elsewhere && (keeps_method || route.methods.as_ref().is_none_or(takes_get))
}
