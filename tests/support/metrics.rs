//! What `/metrics` says, for assertions.

/// One scrape.
#[derive(Debug, Clone, Default)]
pub struct Metrics(Vec<Sample>);

#[derive(Debug, Clone)]
struct Sample {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

impl Metrics {
    /// # Panics
    /// When a line is no sample.
    pub fn parse(text: &str) -> Self {
        Self(
            text.lines()
                .filter(|line| !line.is_empty() && !line.starts_with('#'))
                .map(sample)
                .collect(),
        )
    }

    /// The sum of all samples of `name` with these labels (and any others); 0 without any.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.matching(name, labels).map(|sample| sample.value).sum()
    }

    /// How many series `name` has with these labels.
    pub fn count(&self, name: &str, labels: &[(&str, &str)]) -> usize {
        self.matching(name, labels).count()
    }

    /// All series.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    fn matching<'a>(&'a self, name: &'a str, labels: &'a [(&'a str, &'a str)]) -> impl Iterator<Item = &'a Sample> {
        self.0.iter().filter(move |sample| {
            sample.name == name
                && labels
                    .iter()
                    .all(|(k, v)| sample.labels.iter().any(|(a, b)| a == k && b == v))
        })
    }
}

fn sample(line: &str) -> Sample {
    let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no sample: {line:?}"));
    let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
    let labels = labels
        .strip_suffix('}')
        .unwrap_or_else(|| panic!("no labels: {line:?}"));
    let labels = labels
        .split("\",")
        .filter(|label| !label.is_empty())
        .map(|label| {
            let (key, value) = label.split_once("=\"").unwrap_or_else(|| panic!("no label: {line:?}"));
            (key.to_owned(), value.trim_end_matches('"').to_owned())
        })
        .collect();
    let value = value.parse().unwrap_or_else(|_| panic!("no number: {line:?}"));
    Sample {
        name: name.to_owned(),
        labels,
        value,
    }
}

#[test]
fn metrics_are_summed_by_labels() {
    let metrics = Metrics::parse("# HELP a\na{x=\"1\",y=\"2\"} 3\na{x=\"1\",y=\"3\"} 4\nb 1.5\n");
    assert!((metrics.sum("a", &[("x", "1")]) - 7.0).abs() < f64::EPSILON);
    assert_eq!(metrics.count("a", &[("y", "3")]), 1);
    assert!((metrics.sum("b", &[]) - 1.5).abs() < f64::EPSILON);
}
