//! The chunked coding: what is read, what is refused, however it is split.

use super::*;

/// Reads `input` given in pieces: payload, trailers, bytes consumed, whether done.
fn decode(pieces: &[&[u8]]) -> Result<(Vec<u8>, Vec<u8>, usize, bool), ChunkError> {
    let mut decoder = ChunkDecoder::new(HeadLimits::default());
    let mut payload = Vec::new();
    let mut consumed = 0;
    for piece in pieces {
        let mut rest = *piece;
        while !rest.is_empty() && !decoder.is_done() {
            let step = decoder.step(rest)?;
            assert!(step.consumed > 0 && step.consumed <= rest.len(), "progress");
            assert!(step.data.end <= step.consumed);
            assert_eq!(step.done, decoder.is_done());
            payload.extend_from_slice(&rest[step.data]);
            consumed += step.consumed;
            rest = &rest[step.consumed..];
        }
    }
    Ok((payload, decoder.trailers().to_vec(), consumed, decoder.is_done()))
}

const BODY: &[u8] = b"5\r\nhello\r\n1;a\r\n \r\n06;a=b;c=\"q\\\" \t;\" ; d = e\r\nworld!\r\nA ;x\r\n0123456789\r\n0;last\r\nX-Sum: 1\r\ncontent-length: 9\r\nGrpc-Status:0\r\n\r\nnext";

#[test]
fn a_body_with_everything() {
    let (payload, trailers, consumed, done) = decode(&[BODY]).unwrap();
    assert_eq!(payload, b"hello world!0123456789");
    assert_eq!(trailers, b"X-Sum: 1\r\ncontent-length: 9\r\nGrpc-Status: 0\r\n");
    assert_eq!(&BODY[consumed..], b"next");
    assert!(done);
}

#[test]
fn every_split_reads_the_same() {
    let whole = decode(&[BODY]).unwrap();
    for at in 0..BODY.len() {
        assert_eq!(decode(&[&BODY[..at], &BODY[at..]]).unwrap(), whole, "split at {at}");
    }
    let single: Vec<&[u8]> = BODY.chunks(1).collect();
    assert_eq!(decode(&single).unwrap(), whole);
}

#[test]
fn an_unfinished_body_is_not_done() {
    let end = BODY.len() - 4;
    for at in 0..end {
        let (_, _, consumed, done) = decode(&[&BODY[..at]]).unwrap();
        assert!(!done && consumed == at, "{at}");
    }
}

#[test]
fn what_follows_the_body_is_not_touched() {
    let mut decoder = ChunkDecoder::new(HeadLimits::default());
    let step = decoder.step(b"0\r\n\r\nGET / HTTP/1.1\r\n").unwrap();
    assert_eq!(
        step,
        ChunkStep {
            consumed: 5,
            data: 5..5,
            done: true
        }
    );
    let step = decoder.step(b"more").unwrap();
    assert_eq!(
        step,
        ChunkStep {
            consumed: 0,
            data: 0..0,
            done: true
        }
    );
}

#[test]
fn bad_chunks_are_refused() {
    use ChunkError::*;
    let table: &[(&[u8], ChunkError)] = &[
        (b"\r\nx", Size),
        (b";a\r\nx", Size),
        (b" 5\r\nhello", Size),
        (b"0x1\r\nh", Size),
        (b"-1\r\nh", Size),
        (b"+1\r\nh", Size),
        (b"5h\r\nhello", Size),
        (b"1_0\r\n", Size),
        (b"\xd9\xa5\r\n", Size),
        (b"00000000000000005\r\nhello", Size),
        (b"8000000000000000\r\n", SizeOverflow),
        (b"ffffffffffffffff\r\n", SizeOverflow),
        (b"10000000000000000\r\n", Size),
        (b"5\nhello", LineEnd),
        (b"5\r\rhello", LineEnd),
        (b"5\rhello", LineEnd),
        (b"5 \r\nhello", Extension),
        (b"5 5\r\nhello", Extension),
        (b"5;\r\nhello", Extension),
        (b"5;a\nhello", LineEnd),
        (b"5;a=\r\nhello", Extension),
        (b"5;a=b \r\nhello", Extension),
        (b"5;a b\r\nhello", Extension),
        (b"5;a=b c\r\nhello", Extension),
        (b"5;=b\r\nhello", Extension),
        (b"5;a=\"b\r\nhello", Extension),
        (b"5;a=\"b\n\"\r\nhello", LineEnd),
        (b"5;a=\"b\"c\r\nhello", Extension),
        (b"5;a=\"\x00\"\r\nhello", Extension),
        (b"5;a=\"\\\r\n", Extension),
        (b"5;\x00\r\nhello", Extension),
        (b"5;a\r\r\nhello", LineEnd),
        (b"5\r\nhelloX\r\n", DataEnd),
        (b"5\r\nhello\n", DataEnd),
        (b"5\r\nhello\rX", DataEnd),
        (b"5\r\nhello0\r\n\r\n", DataEnd),
        (b"0\r\nA\r\n\r\n", Trailer),
        (b"0\r\nA : b\r\n\r\n", Trailer),
        (b"0\r\n: b\r\n\r\n", Trailer),
        (b"0\r\nA: b\r\n c\r\n\r\n", Trailer),
        (b"0\r\nA: \x00\r\n\r\n", Trailer),
        (b"0\r\nA: b\rc\r\n\r\n", Trailer),
        (b"0\r\nA: b\n\r\n", LineEnd),
        (b"0\r\n\n", LineEnd),
        (b"0\r\nA: b\r\n\n", LineEnd),
    ];
    for (input, error) in table {
        let shown = String::from_utf8_lossy(input).into_owned();
        assert_eq!(decode(&[input]).err(), Some(*error), "{shown:?}");
        let single: Vec<&[u8]> = input.chunks(1).collect();
        assert_eq!(decode(&single).err(), Some(*error), "{shown:?} byte by byte");
    }
}

#[test]
fn the_largest_chunk_is_read_as_such() {
    let (payload, _, _, done) = decode(&[b"7fffffffffffffff\r\nabc"]).unwrap();
    assert_eq!((payload.as_slice(), done), (&b"abc"[..], false));
}

#[test]
fn extensions_are_bounded() {
    let chunk = |n: usize| format!("1;{}\r\nx\r\n", "e".repeat(n)).into_bytes();
    assert!(decode(&[&chunk(1023)]).is_ok());
    assert_eq!(decode(&[&chunk(1100)]).err(), Some(ChunkError::ExtensionTooLong));
    let talk = chunk(1000).repeat(20);
    assert_eq!(decode(&[&talk]).err(), Some(ChunkError::Excess));
    // A signature on every chunk of some size is no empty talk.
    let signed = [
        format!("400;chunk-signature={}\r\n", "a".repeat(64)).into_bytes(),
        vec![b'x'; 1024],
        b"\r\n".to_vec(),
    ];
    assert!(decode(&[&signed.concat().repeat(1000)]).is_ok());
    assert!(decode(&[&b"1\r\nx\r\n".repeat(100_000)]).is_ok());
}

#[test]
fn trailers_are_bounded() {
    let fields = |n: usize| format!("0\r\n{}\r\n", "X: y\r\n".repeat(n)).into_bytes();
    assert!(decode(&[&fields(100)]).is_ok());
    assert_eq!(decode(&[&fields(101)]).err(), Some(ChunkError::TrailersTooLarge));
    let long = |n: usize| format!("0\r\nX: {}\r\n\r\n", "y".repeat(n)).into_bytes();
    assert!(decode(&[&long(32_000)]).is_ok());
    assert_eq!(decode(&[&long(33_000)]).err(), Some(ChunkError::TrailersTooLarge));
    let endless = [b"0\r\n".to_vec(), vec![b'y'; 33_000]].concat();
    assert_eq!(decode(&[&endless]).err(), Some(ChunkError::TrailersTooLarge));
}

#[test]
fn trailers_are_written_as_we_would() {
    let input = b"0\r\nA: 1\r\nB:  2 \r\nC:3\r\n\r\n";
    assert_eq!(decode(&[input]).unwrap().1, b"A: 1\r\nB: 2\r\nC: 3\r\n");
}

#[test]
fn written_chunks_are_read_again() {
    let mut out = Vec::new();
    let sizes = [1, 9, 10, 15, 16, 17, 255, 256, 4095, 4096, 65_535, 65_536];
    for size in sizes {
        write_chunk_head(&mut out, size);
        out.resize(out.len() + size, b'z');
        out.extend_from_slice(CHUNK_END);
    }
    write_chunk_head(&mut out, 0);
    write_last_chunk(&mut out, b"A: 1\r\n");
    let (payload, trailers, consumed, done) = decode(&[&out]).unwrap();
    assert_eq!(payload.len(), sizes.iter().sum::<usize>());
    assert_eq!(
        (trailers.as_slice(), consumed, done),
        (&b"A: 1\r\n"[..], out.len(), true)
    );
    let mut head = Vec::new();
    write_chunk_head(&mut head, 26);
    assert_eq!(head, b"1a\r\n");
    head.clear();
    write_chunk_head(&mut head, usize::MAX);
    assert_eq!(head, b"ffffffffffffffff\r\n");
}
