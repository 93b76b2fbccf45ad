//! The cost of the wire format: a browser's GET read and rewritten, its answer, a chunked body.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rollgate::http1::{
    Chain, ChunkDecoder, FieldEdits, HeadLimits, HeadParser, MethodKind, Piece, PieceFacts, RequestAdditions,
    ResponseAdditions, Rewrite, Upgrading, Version, parse_request, parse_response, write_chunk_head, write_last_chunk,
    write_request, write_response,
};
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};

const REQUEST: &[u8] = b"GET /shop/products/4711?ref=home&sort=price HTTP/1.1\r\n\
Host: shop.example.com\r\n\
User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
Accept-Language: en-US,en;q=0.5\r\n\
Accept-Encoding: gzip, deflate, br, zstd\r\n\
Referer: https://shop.example.com/\r\n\
Connection: keep-alive\r\n\
Cookie: session=8f14e45fceea167a5a36dedd4bea2543; theme=dark; _ga=GA1.2.1234567890.1234567890\r\n\
Upgrade-Insecure-Requests: 1\r\n\
Priority: u=0, i\r\n\r\n";

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\n\
Server: nginx\r\n\
Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
Content-Type: text/html; charset=utf-8\r\n\
Content-Length: 1024\r\n\
Connection: keep-alive\r\n\
ETag: \"5f4dcc3b-400\"\r\n\
Cache-Control: max-age=60\r\n\
Vary: Accept-Encoding\r\n\r\n";

fn request_additions() -> RequestAdditions<'static> {
    RequestAdditions {
        client_ip: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)),
        peer_trusted: false,
        chain: Chain::default(),
        https: true,
        forwarded: false,
        via: true,
        request_id: "0af7651916cd43dd8448eb211c80319c",
        traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        version: "v2",
        default_host: "",
        upgrading: Upgrading::default(),
        rewrite: None,
        to: Version::Http11,
    }
}

/// One field set to a text, one to a variable, one removed; another host, another path.
fn rules() -> Rewrite {
    let added = [("x-tenant", Piece::Text("shop".into())), ("x-real-ip", Piece::ClientIp)];
    let added = added.map(|(name, value)| (name.to_owned(), vec![value]));
    Rewrite {
        request: FieldEdits::new(["x-tenant", "x-real-ip", "x-debug"].map(str::to_owned), added.to_vec()),
        host: Some("shop.internal".into()),
        strip_prefix: Some("/shop".into()),
        ..Rewrite::default()
    }
}

fn heads(c: &mut Criterion) {
    let limits = HeadLimits::default();
    let mut parser = HeadParser::new();
    let mut out = Vec::new();
    let add = request_additions();
    c.bench_function("request/parse", |b| {
        b.iter(|| {
            if let Ok(Some(head)) = parse_request(black_box(REQUEST), &limits, &mut parser) {
                black_box((head.host(REQUEST), head.path(REQUEST)));
                parser.recycle(head);
            }
        });
    });
    c.bench_function("request/parse_rewrite", |b| {
        b.iter(|| {
            if let Ok(Some(head)) = parse_request(black_box(REQUEST), &limits, &mut parser) {
                out.clear();
                write_request(&mut out, &head, REQUEST, &add);
                black_box(&out);
                parser.recycle(head);
            }
        });
    });
    let rules = rules();
    let facts = PieceFacts {
        client_ip: add.client_ip,
        host: "shop.example.com",
        https: true,
        request_id: add.request_id,
        client_cert: None,
    };
    let with_rules = RequestAdditions {
        rewrite: Some((&rules, facts)),
        ..add
    };
    c.bench_function("request/parse_rewrite_by_rules", |b| {
        b.iter(|| {
            if let Ok(Some(head)) = parse_request(black_box(REQUEST), &limits, &mut parser) {
                out.clear();
                write_request(&mut out, &head, REQUEST, &with_rules);
                black_box(&out);
                parser.recycle(head);
            }
        });
    });
    c.bench_function("answer/parse_rewrite", |b| {
        b.iter(|| {
            let (method, upgrading) = (MethodKind::Get, Upgrading::default());
            if let Ok(Some(head)) = parse_response(black_box(ANSWER), method, upgrading, &limits, &mut parser) {
                let add = ResponseAdditions {
                    client: Version::Http11,
                    close: false,
                    keep_alive_10: false,
                    set_cookie: None,
                    version: None,
                    framing: head.forward_framing(Version::Http11),
                    date: None,
                    hsts: None,
                    via: true,
                    upgrading,
                    edits: None,
                };
                out.clear();
                write_response(&mut out, &head, ANSWER, &add);
                black_box(&out);
                parser.recycle(head);
            }
        });
    });
}

fn chunks(c: &mut Criterion) {
    let mut group = c.benchmark_group("chunked");
    for size in [64usize, 4096] {
        let mut wire = Vec::new();
        for _ in 0..(64 << 10) / size {
            write_chunk_head(&mut wire, size);
            wire.resize(wire.len() + size, b'x');
            wire.extend_from_slice(b"\r\n");
        }
        write_last_chunk(&mut wire, b"");
        group.throughput(Throughput::Bytes(64 << 10));
        group.bench_function(format!("64KiB_in_{size}"), |b| {
            b.iter(|| {
                let mut decoder = ChunkDecoder::new(HeadLimits::default());
                let mut rest = black_box(wire.as_slice());
                while let Ok(step) = decoder.step(rest) {
                    black_box(&step.data);
                    rest = rest.get(step.consumed..).unwrap_or_default();
                    if step.done || step.consumed == 0 {
                        break;
                    }
                }
            });
        });
    }
}

criterion_group!(benches, heads, chunks);
criterion_main!(benches);
