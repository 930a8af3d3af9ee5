//! The text format of Prometheus, version 0.0.4.

use std::fmt::{Display, Write as _};

use crate::Histogram;

/// What a family's values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows; its name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution.
    Histogram,
}

/// Metrics of one name, which differ by their labels.
#[derive(Debug, PartialEq, Eq)]
pub struct Family {
    /// The name: `nave_`, what is counted, its unit.
    pub name: &'static str,
    /// What the values are.
    pub kind: Kind,
    /// What they mean, in one line.
    pub help: &'static str,
}

impl Family {
    /// Something that is counted.
    pub const fn counter(name: &'static str, help: &'static str) -> Self {
        Self { name, kind: Kind::Counter, help }
    }

    /// Something that is so now.
    pub const fn gauge(name: &'static str, help: &'static str) -> Self {
        Self { name, kind: Kind::Gauge, help }
    }

    /// Something that is distributed.
    pub const fn histogram(name: &'static str, help: &'static str) -> Self {
        Self { name, kind: Kind::Histogram, help }
    }
}

/// One answer to a scrape. Families may be added to in any order; each is written in one piece, as the format wants it.
#[derive(Debug, Default)]
pub struct Page {
    families: Vec<(&'static Family, String)>,
}

impl Page {
    /// The type of the text, for HTTP.
    pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

    /// Names a family that may have no value yet.
    pub fn declare(&mut self, family: &'static Family) {
        self.lines(family);
    }

    /// Adds a counter's or gauge's value.
    pub fn value(&mut self, family: &'static Family, labels: &[(&str, &str)], value: impl Display) {
        let lines = self.lines(family);
        lines.push_str(family.name);
        write_labels(lines, labels, None);
        write_end(lines, value);
    }

    /// Adds a distribution.
    pub fn histogram(&mut self, family: &'static Family, labels: &[(&str, &str)], histogram: &Histogram) {
        let lines = self.lines(family);
        let mut total = 0;
        for (bound, count) in histogram.cumulated() {
            total = count;
            let bound = if bound.is_finite() { bound.to_string() } else { "+Inf".to_owned() };
            lines.push_str(family.name);
            lines.push_str("_bucket");
            write_labels(lines, labels, Some(&bound));
            write_end(lines, count);
        }
        for (suffix, value) in [("_sum", histogram.sum().to_string()), ("_count", total.to_string())] {
            lines.push_str(family.name);
            lines.push_str(suffix);
            write_labels(lines, labels, None);
            write_end(lines, value);
        }
    }

    /// The whole text.
    pub fn render(&self) -> String {
        let mut text = String::new();
        for (family, lines) in &self.families {
            let kind = match family.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram => "histogram",
            };
            // Writing to a string cannot fail.
            let _ = writeln!(text, "# HELP {} {}\n# TYPE {} {kind}", family.name, family.help, family.name);
            text.push_str(lines);
        }
        text
    }

    fn lines(&mut self, family: &'static Family) -> &mut String {
        let known = self.families.iter().position(|(known, _)| *known == family);
        let at = known.unwrap_or_else(|| {
            self.families.push((family, String::new()));
            self.families.len() - 1
        });
        &mut self.families[at].1
    }
}

fn write_labels(lines: &mut String, labels: &[(&str, &str)], bound: Option<&str>) {
    let bound = bound.map(|bound| ("le", bound));
    for (index, (name, value)) in labels.iter().copied().chain(bound).enumerate() {
        lines.push(if index == 0 { '{' } else { ',' });
        lines.push_str(name);
        lines.push_str("=\"");
        for character in value.chars() {
            match character {
                '\\' => lines.push_str("\\\\"),
                '"' => lines.push_str("\\\""),
                '\n' => lines.push_str("\\n"),
                other => lines.push(other),
            }
        }
        lines.push('"');
    }
    if !labels.is_empty() || bound.is_some() {
        lines.push('}');
    }
}

fn write_end(lines: &mut String, value: impl Display) {
    // Writing to a string cannot fail.
    let _ = writeln!(lines, " {value}");
}

#[cfg(test)]
mod tests {
    use super::*;

    static REQUESTS: Family = Family::counter("nave_requests_total", "Requests.");
    static QUEUED: Family = Family::gauge("nave_queued", "Waiting.");
    static BATCH: Family = Family::histogram("nave_batch", "Together.");

    #[test]
    fn a_family_is_written_in_one_piece() {
        let batch = Histogram::of_counts();
        batch.count(1);
        batch.count(3);
        let mut page = Page::default();
        page.value(&REQUESTS, &[("hub", "a"), ("outcome", "ok")], 3);
        page.value(&QUEUED, &[], 0.5);
        page.histogram(&BATCH, &[("hub", "a")], &batch);
        page.value(&REQUESTS, &[("hub", "b\"\\\n"), ("outcome", "ok")], 4);
        let text = page.render();
        assert!(text.starts_with(
            "# HELP nave_requests_total Requests.\n# TYPE nave_requests_total counter\n\
             nave_requests_total{hub=\"a\",outcome=\"ok\"} 3\n\
             nave_requests_total{hub=\"b\\\"\\\\\\n\",outcome=\"ok\"} 4\n\
             # HELP nave_queued Waiting.\n# TYPE nave_queued gauge\nnave_queued 0.5\n"
        ));
        for line in [
            "nave_batch_bucket{hub=\"a\",le=\"1\"} 1",
            "nave_batch_bucket{hub=\"a\",le=\"2\"} 1",
            "nave_batch_bucket{hub=\"a\",le=\"4\"} 2",
            "nave_batch_bucket{hub=\"a\",le=\"+Inf\"} 2",
            "nave_batch_sum{hub=\"a\"} 4",
            "nave_batch_count{hub=\"a\"} 2",
        ] {
            assert!(text.contains(&format!("\n{line}\n")), "{line} in {text}");
        }
    }
}
