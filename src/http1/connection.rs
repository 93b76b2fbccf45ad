//! The `Connection` field: what it asks of this hop, and the fields it nominates (RFC 9110 section 7.6.1).

use super::field::{self, Kind};
use super::head::{Field, slice};
use super::{HeadError, Version, is_token, list_elements};

/// As many options as a sane peer never sends.
const MAX_OPTIONS: u32 = 10;

/// What all `Connection` fields together say.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Options {
    pub(super) close: bool,
    pub(super) keep_alive: bool,
    pub(super) upgrade: bool,
    pub(super) te: bool,
    /// Another field is named.
    nominates: bool,
    count: u32,
}

enum Option_ {
    Close,
    KeepAlive,
    Upgrade,
    Te,
    Nomination,
}

fn option(name: &[u8]) -> Option_ {
    if name.eq_ignore_ascii_case(b"keep-alive") {
        Option_::KeepAlive
    } else if name.eq_ignore_ascii_case(b"close") {
        Option_::Close
    } else if name.eq_ignore_ascii_case(b"upgrade") {
        Option_::Upgrade
    } else if name.eq_ignore_ascii_case(b"te") {
        Option_::Te
    } else {
        Option_::Nomination
    }
}

impl Options {
    /// Adds the options of one `Connection` field. Empty elements are passed over (RFC 9110 section 5.6.1.2).
    pub(super) fn add(&mut self, value: &[u8]) -> Result<(), HeadError> {
        for name in list_elements(value).filter(|e| !e.is_empty()) {
            if !is_token(name) {
                return Err(HeadError::Connection);
            }
            self.count += 1;
            if self.count >= MAX_OPTIONS {
                return Err(HeadError::TooManyNominations);
            }
            match option(name) {
                Option_::Close => self.close = true,
                Option_::KeepAlive => self.keep_alive = true,
                Option_::Upgrade => self.upgrade = true,
                Option_::Te => self.te = true,
                Option_::Nomination => self.nominates = true,
            }
        }
        Ok(())
    }

    /// Whether the connection may serve another message after this one, as its sender sees it.
    pub(super) fn persists(&self, version: Version) -> bool {
        !self.close && (version > Version::Http10 || self.keep_alive)
    }

    /// Marks the fields that `Connection` names, so that they are not forwarded.
    ///
    /// Refused: framing fields and `Host`, and in requests (`strict`) whatever is meant for the far end.
    pub(super) fn mark(&self, buf: &[u8], fields: &mut [Field], strict: bool) -> Result<(), HeadError> {
        if !self.nominates {
            return Ok(());
        }
        for at in 0..fields.len() {
            let Some(field) = fields.get(at).filter(|f| f.kind == Kind::Connection) else {
                continue;
            };
            let value = slice(buf, field.value);
            for name in list_elements(value).filter(|e| !e.is_empty()) {
                if matches!(option(name), Option_::Nomination) {
                    mark_one(buf, fields, name, strict)?;
                }
            }
        }
        Ok(())
    }
}

/// Whether the `Connection` of these fields names the one called `name`.
pub(super) fn names(buf: &[u8], fields: &[Field], name: &[u8]) -> bool {
    let mut options = fields.iter().filter(|field| field.kind == Kind::Connection);
    options.any(|field| list_elements(slice(buf, field.value)).any(|option| option.eq_ignore_ascii_case(name)))
}

fn mark_one(buf: &[u8], fields: &mut [Field], name: &[u8], strict: bool) -> Result<(), HeadError> {
    let kind = field::classify(name);
    let framing = matches!(kind, Kind::Host | Kind::ContentLength | Kind::TransferEncoding);
    if framing || (strict && field::is_essential(name)) {
        return Err(HeadError::NominatedEssential);
    }
    for field in fields {
        // Hop-by-hop fields keep their kind: they are removed anyway, and `Connection` itself is still to be read.
        let removable = matches!(field.kind, Kind::Other | Kind::Date) || !strict && field.kind != Kind::Connection;
        if removable && slice(buf, field.name).eq_ignore_ascii_case(name) {
            field.kind = Kind::Nominated;
        }
    }
    Ok(())
}
