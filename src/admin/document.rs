//! What the OpenAPI document says beside the operations: who it is of, tokens, and the problems that an operation may
//! answer with.

use super::problem::Kind;
use crate::rollout::Verb;
use std::collections::BTreeMap;
use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{
    Components, ContentBuilder, InfoBuilder, LicenseBuilder, OpenApi, PathItem, Ref, RefOr, Required, ResponseBuilder,
};
use utoipa::{IntoParams, PartialSchema, ToSchema};

const ABOUT: &str = "What runs is asked, and changed, over the unix socket `admin.socket` or over `admin.address`. Over TCP \
anyone may read; changes, and what may hold secrets, need `Authorization: Bearer` with a token of `admin.token_file`. \
A change may be sent with `If-Match` and the `ETag` of what it was decided on: it is refused if anything is otherwise \
by then. When a change is answered, no request accepted afterwards is routed the old way. Errors are problems of RFC 9457: \
`type` is `urn:rollgate:problem:` and a word that stays the same.";

/// Of everything but probes.
const OF_ALL: &[Kind] = &[
    Kind::BadRequest,
    Kind::ForeignOrigin,
    Kind::ForbiddenUser,
    Kind::WrongHost,
    Kind::Late,
];
/// Of what needs a token over TCP.
const OF_TRUSTED: &[Kind] = &[Kind::Unauthorized, Kind::ReadOnly, Kind::TokenFile];
/// Of what takes a body.
const OF_BODIES: &[Kind] = &[
    Kind::MalformedJson,
    Kind::BodyTimeout,
    Kind::BodyTooLarge,
    Kind::MediaType,
    Kind::Unacceptable,
];
/// Of what the writer is asked.
const OF_CHANGES: &[Kind] = &[
    Kind::Stale,
    Kind::Overtaken,
    Kind::NotDurable,
    Kind::Busy,
    Kind::Stopping,
];
/// Of what names a service.
const OF_SERVICES: &[Kind] = &[Kind::UnknownService];

/// Of single operations, by path and method.
const OF_ONE: &[(&str, &str, &[Kind])] = &[
    (
        "/v1/services/{service}/weights",
        "put",
        &[
            Kind::UnknownVersion,
            Kind::MissingVersion,
            Kind::WeightTooLarge,
            Kind::NoWeight,
        ],
    ),
    (
        "/v1/services/{service}/kill",
        "delete",
        &[Kind::KilledByFile, Kind::KilledWithAll],
    ),
    ("/v1/kill", "delete", &[Kind::KilledByFile]),
    (
        "/v1/services/{service}/rollout/{verb}",
        "post",
        &[Kind::NotFound, Kind::NoRollout],
    ),
    (
        "/v1/config/reload",
        "post",
        &[Kind::BadConfiguration, Kind::RefusesToRun, Kind::Unreadable],
    ),
    ("/v1/config/validate", "post", &[Kind::BadConfiguration]),
    ("/v1/upgrade", "post", &[Kind::NotUpgraded]),
    ("/v1/explain", "post", &[Kind::UnknownService]),
    ("/v1/events", "get", &[Kind::History, Kind::Busy]),
];

/// Declares a parameter that handlers read in their own way.
macro_rules! parameters {
    ($($name:ident: $called:literal in $place:ident, $required:ident, $about:literal, $schema:expr;)*) => {$(
        pub enum $name {}

        impl IntoParams for $name {
            fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
                let parameter = ParameterBuilder::new()
                    .name($called)
                    .parameter_in(ParameterIn::$place)
                    .required(Required::$required)
                    .description(Some($about))
                    .schema(Some($schema));
                vec![parameter.build()]
            }
        }
    )*};
}

parameters! {
    ServicePath: "service" in Path, True, "Its name.",
        ObjectBuilder::new().schema_type(Type::String).examples(["checkout"]);
    VerbPath: "verb" in Path, True, "What is to become of the rollout.",
        ObjectBuilder::new().schema_type(Type::String).enum_values(Some(Verb::ALL.map(Verb::word)));
    IfMatch: "If-Match" in Header, False, "An `ETag`, with or without its quotes, or `*`: the change is made only if nothing is otherwise since.",
        ObjectBuilder::new().schema_type(Type::String).pattern(Some(r#"^(\*|"[0-9]{1,18}"|[0-9]{1,18})$"#));
    LastEventId: "Last-Event-ID" in Header, False, "Of who follows: the last number it has.",
        ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0)).maximum(Some(i64::MAX));
}

/// `document` with all that, as JSON.
pub fn completed(mut document: OpenApi) -> String {
    document.info = InfoBuilder::new()
        .title("Rollgate admin API")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(ABOUT))
        .license(Some(
            LicenseBuilder::new()
                .name("Apache-2.0")
                .identifier(Some("Apache-2.0"))
                .build(),
        ))
        .build();
    let components = document.components.get_or_insert_with(Components::new);
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some(
            "A token of `admin.token_file`. Over the unix socket none is needed.",
        ))
        .build();
    components.add_security_scheme("token", SecurityScheme::Http(bearer));
    let mut schemas = Vec::new();
    super::api::Problem::schemas(&mut schemas);
    components.schemas.extend(schemas);
    components
        .schemas
        .insert("Problem".to_owned(), super::api::Problem::schema());
    for (path, item) in &mut document.paths.paths {
        for (method, operation) in operations(item) {
            add_problems(path, method, operation);
        }
    }
    // The document is plain data.
    document.to_pretty_json().unwrap_or_default() + "\n"
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = (&'static str, &mut Operation)> {
    [
        ("get", item.get.as_mut()),
        ("put", item.put.as_mut()),
        ("post", item.post.as_mut()),
        ("delete", item.delete.as_mut()),
    ]
    .into_iter()
    .filter_map(|(method, operation)| Some((method, operation?)))
}

fn add_problems(path: &str, method: &str, operation: &mut Operation) {
    let tagged = |tag: &str| operation.tags.iter().flatten().any(|one| one == tag);
    if tagged("probes") {
        return;
    }
    let lists = [
        (true, OF_ALL),
        (operation.security.is_some(), OF_TRUSTED),
        (operation.request_body.is_some(), OF_BODIES),
        (tagged("changes"), OF_CHANGES),
        (path.contains("{service}"), OF_SERVICES),
    ];
    let lists = lists.into_iter().filter(|(holds, _)| *holds).map(|(_, kinds)| kinds);
    let of_one = OF_ONE
        .iter()
        .filter(|one| (one.0, one.1) == (path, method))
        .map(|one| one.2);
    let mut by_status: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for kind in lists.chain(of_one).flatten() {
        let words = by_status.entry(kind.status().as_str().to_owned()).or_default();
        words.push(format!("`{}`", kind.word()));
    }
    for (status, words) in by_status {
        let problem = ContentBuilder::new()
            .schema(Some(RefOr::Ref(Ref::from_schema_name("Problem"))))
            .build();
        let response = ResponseBuilder::new()
            .description(words.join(", "))
            .content("application/problem+json", problem)
            .build();
        operation.responses.responses.insert(status, RefOr::T(response));
    }
}
