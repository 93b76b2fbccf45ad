//! Conditions on a request: header, cookie, query, client_ip, segment, any/all/not.

use super::SegmentId;
use ipnet::IpNet;
use regex::Regex;

/// A condition, compiled. The depth is bounded when it is compiled, and segments are free of cycles.
#[derive(Debug, Clone)]
pub enum Condition {
    Test { source: Source, operator: Operator },
    ClientIp(Box<[IpNet]>),
    Segment(SegmentId),
    Any(Box<[Condition]>),
    All(Box<[Condition]>),
    Not(Box<Condition>),
}

/// Where a tested value comes from. Names of headers are lowercase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    Header(Box<str>),
    Cookie(Box<str>),
    Query(Box<str>),
}

/// How a value is tested. An absent value satisfies only `Exists(false)`.
#[derive(Debug, Clone)]
pub enum Operator {
    Equals(Box<str>),
    In(Box<[Box<str>]>),
    StartsWith(Box<str>),
    EndsWith(Box<str>),
    Contains(Box<str>),
    Matches(Regex),
    Exists(bool),
    GreaterThan(f64),
    LessThan(f64),
}
