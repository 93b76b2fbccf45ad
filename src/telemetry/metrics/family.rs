//! Families of samples, in the Prometheus crate's own types.

use crate::shared::{DURATION_BOUNDS_US, Totals};
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};

/// A family that is being filled.
pub(super) struct Family {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    metrics: Vec<Metric>,
}

impl Family {
    pub(super) fn counter(name: &'static str, help: &'static str) -> Self {
        Self::new(name, help, MetricType::COUNTER)
    }

    pub(super) fn gauge(name: &'static str, help: &'static str) -> Self {
        Self::new(name, help, MetricType::GAUGE)
    }

    pub(super) fn histogram(name: &'static str, help: &'static str) -> Self {
        Self::new(name, help, MetricType::HISTOGRAM)
    }

    fn new(name: &'static str, help: &'static str, kind: MetricType) -> Self {
        Self {
            name,
            help,
            kind,
            metrics: Vec::new(),
        }
    }

    /// One sample of a counter or gauge.
    pub(super) fn push(&mut self, labels: &[(&str, &str)], value: f64) {
        let mut metric = Metric::from_label(pairs(labels));
        if self.kind == MetricType::COUNTER {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        } else {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        self.metrics.push(metric);
    }

    /// One sample of a histogram: the durations, in seconds.
    pub(super) fn push_durations(&mut self, labels: &[(&str, &str)], totals: &Totals) {
        let mut count = 0;
        let mut buckets = Vec::with_capacity(DURATION_BOUNDS_US.len());
        for (&bound_us, &in_bucket) in DURATION_BOUNDS_US.iter().zip(&totals.durations) {
            count += in_bucket;
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(seconds(bound_us));
            bucket.set_cumulative_count(count);
            buckets.push(bucket);
        }
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets);
        histogram.set_sample_count(totals.durations.iter().sum());
        histogram.set_sample_sum(seconds(totals.duration_sum_us));
        let mut metric = Metric::from_label(pairs(labels));
        metric.set_histogram(histogram);
        self.metrics.push(metric);
    }

    /// `None` without samples: the text format knows no empty family.
    pub(super) fn finish(self) -> Option<MetricFamily> {
        if self.metrics.is_empty() {
            return None;
        }
        let mut family = MetricFamily::default();
        family.set_name(self.name.to_owned());
        family.set_help(self.help.to_owned());
        family.set_field_type(self.kind);
        family.set_metric(self.metrics);
        Some(family)
    }
}

/// A family of one sample without labels.
pub(super) fn single(mut family: Family, value: f64) -> Option<MetricFamily> {
    family.push(&[], value);
    family.finish()
}

fn pairs(labels: &[(&str, &str)]) -> Vec<LabelPair> {
    labels
        .iter()
        .map(|&(name, value)| {
            let mut pair = LabelPair::default();
            pair.set_name(name.to_owned());
            pair.set_value(value.to_owned());
            pair
        })
        .collect()
}

fn seconds(us: u64) -> f64 {
    us as f64 / 1_000_000.0
}
