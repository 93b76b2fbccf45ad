//! `rollgate explain SERVICE|URL [-H 'k: v']... [--client-ip IP] [--client-cert-cn CN]`: why a request gets the version it gets.

use super::client::{Client, Request, segment};
use super::context::{Context, Reach};
use super::failure::Failure;
use super::print;
use super::table::safe;
use crate::admin::api::{ExplainRequest, ExplainedCert, FieldValues};
use crate::control::{cookie_key, load, writer};
use crate::explain::{Assume, Described, Explanation, Moment, Subject, explain};
use crate::runtime;
use hyper::{Method, Uri};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The arguments of `rollgate explain`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// A service's name, or the URL of the request
    #[arg(value_name = "SERVICE|URL")]
    target: String,
    /// Ask no proxy, but this configuration file alone: weights as it has them, every endpoint taken for healthy
    #[arg(long, short, value_name = "FILE", conflicts_with = "admin")]
    config: Option<PathBuf>,
    /// A header field of the request; may be given again
    #[arg(long, short = 'H', value_name = "NAME: VALUE", value_parser = header_field)]
    header: Vec<(String, String)>,
    /// The request's method
    #[arg(long, short = 'X', value_name = "METHOD", default_value = "GET")]
    method: String,
    /// The client's address
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    client_ip: IpAddr,
    /// The client has shown a certificate with this common name of its subject
    #[arg(long, value_name = "CN")]
    client_cert_cn: Option<String>,
    /// The client has shown a certificate with this alternative name; may be given again
    #[arg(long, value_name = "NAME")]
    client_cert_san: Vec<String>,
    #[command(flatten)]
    reach: Reach,
}

fn header_field(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("expected `name: value`")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

impl Arguments {
    pub fn run(&self, context: &Context) -> ExitCode {
        let json = context.json(&self.reach);
        let result = match &self.config {
            Some(file) => self.by_file(file, json),
            None => context
                .client(&self.reach, None)
                .and_then(|client| self.by_proxy(&client, json)),
        };
        print::finish(result, json)
    }

    /// Weights moved at run time and the health of endpoints are not looked at.
    fn by_file(&self, file: &Path, json: bool) -> Result<String, Failure> {
        let snapshot = load::load(file).map_err(|error| Failure::failed(error.to_string()))?;
        let failed = |error: &dyn std::fmt::Display| Failure::failed(error.to_string());
        let described = Described {
            method: self.method.clone(),
            subject: Subject::parse(&snapshot.policy, &self.target).map_err(|error| failed(&error))?,
            headers: self.header.clone(),
            client_ip: self.client_ip,
            client_cert: self.client_cert().map(Into::into),
        };
        let assume = Assume {
            now_s: writer::now_s(),
            turn: 0,
            fresh_id: 0,
            cookie_key: cookie_key::passing().map_err(|error| failed(&error))?,
        };
        let moment = Moment {
            facts: &assume,
            knows_health: false,
        };
        let explanation = explain(
            &snapshot.policy,
            &runtime::traffic(&runtime::State::default(), &snapshot),
            &described,
            moment,
        )
        .map_err(|error| failed(&error))?;
        if json {
            let text = serde_json::to_string(&explanation).map_err(|error| failed(&error))?;
            return Ok(text + "\n");
        }
        Ok(rendered(&explanation))
    }

    fn by_proxy(&self, client: &Client, json: bool) -> Result<String, Failure> {
        let request = Request::send(Method::POST, "/v1/explain", &self.question(client)?);
        client
            .call(&request)?
            .shown(json, |answer| Ok(rendered(&answer.parse()?)))
    }

    fn question(&self, client: &Client) -> Result<ExplainRequest, Failure> {
        let mut headers: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, value) in &self.header {
            headers
                .entry(name.to_ascii_lowercase())
                .or_default()
                .push(value.clone());
        }
        let named = self.names_service(client)?.then(|| self.target.clone());
        let uri = if named.is_some() {
            None
        } else {
            Some(url(&self.target)?)
        };
        let path = uri.as_ref().and_then(|uri| uri.path_and_query());
        Ok(ExplainRequest {
            method: self.method.clone(),
            host: uri.as_ref().and_then(|uri| uri.host()).map(str::to_owned),
            path: path.map(ToString::to_string),
            headers: headers
                .into_iter()
                .map(|(name, values)| (name, FieldValues::Several(values)))
                .collect(),
            client_ip: Some(self.client_ip),
            client_cert: self.client_cert(),
            service: named,
        })
    }

    /// `None`: the client has shown no certificate.
    fn client_cert(&self) -> Option<ExplainedCert> {
        let is_shown = self.client_cert_cn.is_some() || !self.client_cert_san.is_empty();
        is_shown.then(|| ExplainedCert {
            subject_cn: self.client_cert_cn.clone(),
            san: self.client_cert_san.clone(),
        })
    }

    /// Whether the target is a service of the proxy: a name with a point could be a host as well.
    fn names_service(&self, client: &Client) -> Result<bool, Failure> {
        if self.target.contains(['/', ':']) {
            return Ok(false);
        }
        if !self.target.contains('.') {
            return Ok(true);
        }
        match client.call(&Request::get(format!("/v1/services/{}", segment(&self.target)))) {
            Ok(_) => Ok(true),
            Err(failure) if failure.is_not_found() => Ok(false),
            Err(failure) => Err(failure),
        }
    }
}

fn url(text: &str) -> Result<Uri, Failure> {
    let absolute = if text.contains("://") || text.starts_with('/') {
        text.to_owned()
    } else {
        format!("http://{text}")
    };
    absolute
        .parse()
        .map_err(|error| Failure::usage(format!("{text:?} is not a URL: {error}")))
}

fn rendered(explanation: &Explanation) -> String {
    explanation.lines().iter().map(|line| safe(line) + "\n").collect()
}
