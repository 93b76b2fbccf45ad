//! `rollgate explain SERVICE|URL [-H 'k: v']... [--client-ip IP]`: why a request gets the version it gets.

use crate::control::{cookie_key, load, writer};
use crate::explain::{Assume, Described, Moment, Subject, explain};
use crate::runtime;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

/// The arguments of `rollgate explain`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// A service's name, or the URL of the request.
    #[arg(value_name = "SERVICE|URL")]
    target: String,
    /// The configuration file.
    #[arg(long, short, value_name = "FILE", env = "ROLLGATE_CONFIG")]
    config: PathBuf,
    /// A header field of the request; may be given again.
    #[arg(long, short = 'H', value_name = "NAME: VALUE", value_parser = header_field)]
    header: Vec<(String, String)>,
    #[arg(long, short = 'X', value_name = "METHOD", default_value = "GET")]
    method: String,
    /// The client's address.
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    client_ip: IpAddr,
    /// For programs: one JSON object.
    #[arg(long)]
    json: bool,
}

fn header_field(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("expected `name: value`")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

/// Explains by the file alone: weights moved at run time and the health of endpoints are not looked at.
pub fn run(arguments: &Arguments) -> ExitCode {
    match explained(arguments) {
        Ok(text) => {
            super::print(&text);
            ExitCode::SUCCESS
        }
        Err(error) => super::fail(&error),
    }
}

fn explained(arguments: &Arguments) -> anyhow::Result<String> {
    let snapshot = load::load(&arguments.config)?;
    let described = Described {
        method: arguments.method.clone(),
        subject: Subject::parse(&snapshot.policy, &arguments.target)?,
        headers: arguments.header.clone(),
        client_ip: arguments.client_ip,
    };
    let assume = Assume {
        now_s: writer::now_s(),
        turn: 0,
        fresh_id: 0,
        cookie_key: cookie_key::passing()?,
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
    )?;
    if arguments.json {
        return Ok(serde_json::to_string_pretty(&explanation)? + "\n");
    }
    Ok(explanation.lines().join("\n") + "\n")
}
