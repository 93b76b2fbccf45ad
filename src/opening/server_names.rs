//! Which certificate a name gets (SNI, RFC 6066 section 3).

use std::collections::HashMap;

/// The names of a list of certificates, looked up by the name a client asks for.
///
/// A name wins over a wildcard, and a wildcard stands for exactly one label (RFC 9525 section 6.3). Several certificates
/// of one name (an ECDSA and an RSA one, say) are all given, in their order: the client's abilities choose among them.
#[derive(Debug, Default)]
pub struct ServerNames {
    exact: HashMap<Box<str>, Vec<usize>>,
    /// Without their `*.`.
    wildcards: HashMap<Box<str>, Vec<usize>>,
    default: Vec<usize>,
}

impl ServerNames {
    /// `certificates`: the names of each, as in the certificate (`shop.example.com`, `*.example.com`), any case.
    pub fn new(certificates: &[Vec<String>]) -> Self {
        let mut names = Self::default();
        for (position, of_one) in certificates.iter().enumerate() {
            for name in of_one {
                let name = normal(name);
                let positions = match name.strip_prefix("*.") {
                    Some(parent) => names.wildcards.entry(parent.into()).or_default(),
                    None => names.exact.entry(name.as_str().into()).or_default(),
                };
                if positions.last() != Some(&position) {
                    positions.push(position);
                }
            }
        }
        if let Some(first) = certificates.first() {
            let shares = |of_one: &Vec<String>| of_one.iter().any(|a| first.iter().any(|b| normal(a) == normal(b)));
            let twins = certificates
                .iter()
                .enumerate()
                .skip(1)
                .filter(|(_, of_one)| shares(of_one));
            names.default = std::iter::once(0).chain(twins.map(|(position, _)| position)).collect();
        }
        names
    }

    /// Positions of the certificates for a client that asks for `name`: those that have it, else those with a wildcard
    /// for it, else (or without a name) the first of the list and those that share a name with it. Empty only when the
    /// list is.
    pub fn find(&self, name: Option<&str>) -> &[usize] {
        let Some(name) = name else { return &self.default };
        let name = normal(name);
        let exact = || self.exact.get(name.as_str());
        let wildcard = || {
            let (label, parent) = name.split_once('.')?;
            self.wildcards.get(parent).filter(|_| !label.is_empty())
        };
        exact().or_else(wildcard).unwrap_or(&self.default)
    }
}

/// Lowercase, and without the dot that may end a name.
fn normal(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names(certificates: &[&[&str]]) -> ServerNames {
        let owned = |names: &&[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        ServerNames::new(&certificates.iter().map(owned).collect::<Vec<Vec<String>>>())
    }

    #[test]
    fn a_name_wins_over_a_wildcard_and_that_over_the_first() {
        let names = names(&[
            &["default.example"],
            &["*.example.com", "example.com"],
            &["shop.example.com", "SHOP.example.NET"],
        ]);
        for (name, expected) in [
            (Some("shop.example.com"), &[2][..]),
            (Some("Shop.Example.Com."), &[2]),
            (Some("shop.example.net"), &[2]),
            (Some("www.example.com"), &[1]),
            (Some("example.com"), &[1]),
            (Some("a.b.example.com"), &[0]),
            (Some(".example.com"), &[0]),
            (Some("*.example.com"), &[1]),
            (Some("com"), &[0]),
            (Some(""), &[0]),
            (None, &[0]),
        ] {
            assert_eq!(names.find(name), expected, "{name:?}");
        }
    }

    #[test]
    fn certificates_of_one_name_are_all_given_in_order() {
        let names = names(&[
            &["a.test", "A.test"],
            &["b.test"],
            &["a.test"],
            &["*.b.test"],
            &["*.b.test"],
        ]);
        assert_eq!(names.find(Some("a.test")), [0, 2]);
        assert_eq!(names.find(Some("c.b.test")), [3, 4]);
        assert_eq!(names.find(None), [0, 2], "the first, and its twin");
    }

    #[test]
    fn without_certificates_there_is_none() {
        assert!(names(&[]).find(Some("a")).is_empty() && names(&[]).find(None).is_empty());
        assert_eq!(names(&[&[], &[]]).find(Some("a")), [0]);
    }

    proptest! {
        /// Against the rule written out: over all certificates, best match first.
        #[test]
        fn it_is_the_rule(
            certificates in prop::collection::vec(prop::collection::vec("(\\*\\.)?[ab](\\.[ab]){0,2}", 0..4), 0..6),
            name in prop::option::of("[aAbB](\\.[ab]){0,3}\\.?"),
        ) {
            let of = |wanted: &str| -> Vec<usize> {
                (0..certificates.len()).filter(|&n| certificates[n].iter().any(|name| name == wanted)).collect()
            };
            let mut expected = Vec::new();
            if let Some(name) = &name {
                let name = name.trim_end_matches('.').to_ascii_lowercase();
                expected = of(&name);
                if expected.is_empty() && let Some((_, parent)) = name.split_once('.') {
                    expected = of(&format!("*.{parent}"));
                }
            }
            if expected.is_empty() && !certificates.is_empty() {
                expected = (0..certificates.len())
                    .filter(|&n| n == 0 || certificates[n].iter().any(|name| certificates[0].contains(name)))
                    .collect();
            }
            let names = ServerNames::new(&certificates);
            prop_assert_eq!(names.find(name.as_deref()), expected);
        }
    }
}
