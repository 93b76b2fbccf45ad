//! Why a head is refused.

use crate::outcome::Refusal;
use crate::routing::PathFault;

/// What is wrong with a head. In a request it becomes the [`Refusal`] of [`HeadError::status`]; in an answer, a 502.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum HeadError {
    #[error("a line ends in LF without CR")]
    BareLineFeed,
    #[error("a CR is not followed by LF")]
    BareCarriageReturn,
    #[error("more than one empty line before the head")]
    EmptyLines,
    #[error("the method is not a token of at most 32 bytes")]
    Method,
    #[error("the request line is malformed")]
    RequestLine,
    #[error("the request target holds a byte that is not allowed")]
    TargetByte,
    #[error("the form of the request target does not fit the method")]
    TargetForm,
    #[error(transparent)]
    Path(#[from] PathFault),
    #[error("the method CONNECT is not served")]
    Connect,
    #[error("the HTTP version is malformed")]
    VersionMalformed,
    #[error("the HTTP version is neither 1.0 nor 1.1")]
    VersionNotSupported,
    #[error("the status line is malformed")]
    StatusLine,
    #[error("the status is not between 100 and 599")]
    Status,
    #[error("a field name is not a token followed by a colon, or a line is folded")]
    FieldName,
    #[error("a field value holds a control character")]
    FieldValue,
    #[error("too many fields")]
    TooManyFields,
    #[error("the head is too large")]
    HeadTooLarge,
    #[error("the request line is too long")]
    TargetTooLong,
    #[error("Content-Length is not a number of digits up to 2^63 - 1")]
    ContentLength,
    #[error("Content-Length is repeated")]
    ContentLengthRepeated,
    #[error("both Content-Length and Transfer-Encoding are present")]
    LengthAndCoding,
    #[error("Transfer-Encoding is not one chunked")]
    TransferEncoding,
    #[error("a transfer coding is unknown")]
    UnknownCoding,
    #[error("Transfer-Encoding with HTTP/1.0")]
    CodingOnHttp10,
    #[error("Host is missing")]
    HostMissing,
    #[error("Host is repeated")]
    HostRepeated,
    #[error("the host is invalid")]
    HostInvalid,
    #[error("Host differs from the authority of the request target")]
    HostMismatch,
    #[error("Connection holds what is not a token")]
    Connection,
    #[error("Connection names a field that is meant for the far end")]
    NominatedEssential,
    #[error("Connection has ten options or more")]
    TooManyNominations,
    #[error("the expectation is not 100-continue")]
    Expectation,
    #[error("a TRACE request has a body")]
    TraceBody,
    #[error("Max-Forwards is not one number")]
    MaxForwards,
    #[error("an answer that has no body declares one")]
    BodyForbidden,
    #[error("a 101 that was not asked for, or to another protocol")]
    Upgrade,
    #[error("a field that belongs to a connection, which HTTP/2 does not have")]
    ConnectionField,
}

impl HeadError {
    /// How a request with this fault is refused. The connection is closed afterwards in every case: what follows the head
    /// on the wire cannot be trusted.
    pub fn status(&self) -> Refusal {
        match self {
            Self::Connect => Refusal::MethodNotAllowed,
            Self::VersionNotSupported => Refusal::VersionNotSupported,
            Self::TooManyFields | Self::HeadTooLarge => Refusal::HeadTooLarge,
            Self::TargetTooLong => Refusal::TargetTooLong,
            Self::Expectation => Refusal::ExpectationFailed,
            _ => Refusal::BadRequest,
        }
    }
}
