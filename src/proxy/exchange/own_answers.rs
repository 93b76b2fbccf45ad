//! What the proxy answers by itself because the file says so: redirects and fixed answers. No version has part in them.

use super::Exchange;
use super::endings::Said;
use crate::outcome::{OwnAnswerKind, Refusal};
use crate::proxy::answers::Content;
use crate::proxy::downstream::Next;
use crate::routing::{Asked, NewPath, Redirect, Respond, RouteAnswer, Scheme};

impl Exchange<'_> {
    pub(super) async fn answer_by_route(&self, answer: &RouteAnswer) -> Next {
        match answer {
            RouteAnswer::Redirect(redirect) => self.redirect(redirect, OwnAnswerKind::Redirect).await,
            RouteAnswer::Respond(respond) => self.respond(respond).await,
        }
    }

    /// Sends the client to the same place by https. 308: with the same method, and the same body.
    pub(super) async fn redirect_to_https(&self, port: u16) -> Next {
        let redirect = Redirect {
            status: 308,
            scheme: Some(Scheme::Https),
            host: None,
            port: Some(port),
            path: NewPath::Same,
        };
        self.redirect(&redirect, OwnAnswerKind::RedirectToHttps).await
    }

    async fn redirect(&self, redirect: &Redirect, kind: OwnAnswerKind) -> Next {
        let host = self.head.host(self.bytes);
        let asked = Asked {
            scheme: if self.is_https() { Scheme::Https } else { Scheme::Http },
            host,
            port: self.head.authority(self.bytes).get(host.len()..).unwrap_or_default(),
            path: self.head.path(self.bytes),
            canonical_path: self.head.canonical_path(self.bytes),
            query: self.head.query(self.bytes),
        };
        let Some(location) = redirect.location(&asked) else {
            let why = "this only redirects, and the request names no host";
            return self.refuse(Refusal::BadRequest, why).await;
        };
        self.record.answered_itself(redirect.status, kind);
        let said = Said {
            status: redirect.status,
            fields: &format!("Location: {location}\r\n"),
            content: Some(Content {
                media_type: "text/plain; charset=utf-8",
                body: &format!("{location}\n"),
            }),
            ..Said::default()
        };
        self.say(said, self.has_body()).await
    }

    async fn respond(&self, respond: &Respond) -> Next {
        self.record.answered_itself(respond.status, OwnAnswerKind::Respond);
        let said = Said {
            status: respond.status,
            content: Some(Content {
                media_type: &respond.content_type,
                body: &respond.body,
            }),
            ..Said::default()
        };
        self.say(said, self.has_body()).await
    }
}
