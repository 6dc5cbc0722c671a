//! The summary of a run, and its tables.

use super::question::Question;
use super::stats::{Paired, wilson};
use super::task::Task;
use super::variant::Variant;
use crate::lab::results::{
    Accuracy, BadRow, Comparison, Judge, Results, Row, RunSettings, SUMMARY_FORMAT, Summary, VariantSummary,
};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// The maximum number of pairs in a table.
const MOST_PAIRS: usize = 30;

/// The maximum number of characters of a cell. Categories are arbitrary text from a dataset, and Rust pads to at most
/// 65,535 characters.
const WIDEST: usize = 64;

/// The accuracy over `rows`.
fn accuracy<'a>(rows: impl Iterator<Item = &'a Row>) -> Accuracy {
    let (mut n, mut correct) = (0, 0);
    for row in rows {
        n += 1;
        correct += usize::from(row.correct);
    }
    let accuracy = if n == 0 { 0.0 } else { correct as f64 / n as f64 };
    Accuracy { n, correct, accuracy, interval: wilson(correct, n) }
}

impl Summary {
    /// Summarizes the answers in `results` to `questions` by `variants`.
    pub fn new(
        task: Task,
        questions: &[Question],
        variants: &[Variant],
        results: &Results,
        settings: &RunSettings,
        bad_rows: Vec<BadRow>,
    ) -> Self {
        let answers: Vec<Vec<Option<&Row>>> = variants
            .iter()
            .map(|variant| {
                let (method, budget) = (variant.method_name(), variant.budget_name());
                questions.iter().map(|question| results.find(&question.id, &method, &budget)).collect()
            })
            .collect();
        let mut judges = BTreeMap::new();
        for row in answers.iter().flatten().flatten() {
            *judges.entry(row.judge).or_default() += 1;
        }
        Self {
            format: SUMMARY_FORMAT,
            task: task.name().to_owned(),
            complete: answers.iter().flatten().all(Option::is_some),
            questions: questions.len(),
            judges,
            settings: settings.clone(),
            variants: variants.iter().zip(&answers).map(|(variant, rows)| summarize(variant, rows)).collect(),
            comparisons: compare_all(variants, &answers),
            bad_rows,
        }
    }

    /// The tables that `sharpv eval` prints.
    pub fn table(&self) -> String {
        let mut text = String::new();
        let _ = writeln!(text, "{}, {} questions, {}", self.task, self.questions, self.judged());
        let _ = writeln!(text);
        let rows = self.variants.iter().map(|variant| {
            vec![
                variant.name.clone(),
                percent(variant.kept_share),
                percent(variant.computed_share),
                format!("{}/{}", variant.all.correct, variant.all.n),
                percent(variant.all.accuracy),
                span(variant.all.interval),
                variant.no_answer.to_string(),
            ]
        });
        text.push_str(&columns(
            &["method", "tokens kept", "encoded", "right", "accuracy", "95 % interval", "no answer"],
            rows.collect(),
        ));
        let shown: Vec<&Comparison> = self.shown_comparisons().collect();
        if !shown.is_empty() {
            let _ = writeln!(text);
            let rows = shown.iter().map(|comparison| comparison.cells());
            text.push_str(&columns(&Comparison::HEAD, rows.collect()));
        }
        if shown.len() < self.comparisons.len() {
            let _ = writeln!(text, "({} more pairs are in the summary)", self.comparisons.len() - shown.len());
        }
        for (kind, values) in self.kinds() {
            let _ = writeln!(text);
            text.push_str(&self.by_category(&kind, &values));
        }
        text
    }

    /// The comparisons in the table: with many variants only those with the first one.
    fn shown_comparisons(&self) -> impl Iterator<Item = &Comparison> {
        let first = self.variants.first().map_or("", |variant| variant.name.as_str());
        let few = self.comparisons.len() <= MOST_PAIRS;
        self.comparisons.iter().filter(move |comparison| few || comparison.a == first)
    }

    /// Accuracies by the categories of a kind. The columns are the categories or the variants, whichever are fewer.
    fn by_category(&self, kind: &str, values: &[String]) -> String {
        let of =
            |variant: &VariantSummary, value: &str| variant.categories.get(kind).and_then(|c| c.get(value)).copied();
        let cell = |variant, value: &str| of(variant, value).map_or_else(|| "–".to_owned(), |a| percent(a.accuracy));
        let n = |value: &String| {
            self.variants.iter().filter_map(|variant| of(variant, value)).map(|a| a.n).max().unwrap_or(0).to_string()
        };
        let with = |first: &str, second: Option<String>, rest: Vec<String>| {
            std::iter::once(first.to_owned()).chain(second).chain(rest).collect::<Vec<String>>()
        };
        if values.len() < self.variants.len() {
            let mut rows = vec![with("questions", None, values.iter().map(n).collect())];
            rows.extend(
                self.variants.iter().map(|variant| {
                    with(&variant.name, None, values.iter().map(|value| cell(variant, value)).collect())
                }),
            );
            let head: Vec<&str> = std::iter::once(kind).chain(values.iter().map(String::as_str)).collect();
            return columns(&head, rows);
        }
        let rows = values.iter().map(|value| {
            with(value, Some(n(value)), self.variants.iter().map(|variant| cell(variant, value)).collect())
        });
        let names = self.variants.iter().map(|variant| variant.name.as_str());
        let head: Vec<&str> = [kind, "questions"].into_iter().chain(names).collect();
        columns(&head, rows.collect())
    }

    fn judged(&self) -> String {
        let how = self.judges.keys().map(|judge| match judge {
            Judge::Likelihood => "choices by likelihood of the letter",
            Judge::Letter => "choices by the letter in the answer",
            Judge::Match => "open answers by normalized match",
        });
        how.collect::<Vec<_>>().join(", ")
    }

    /// The kinds of categories, each with its categories.
    fn kinds(&self) -> BTreeMap<String, Vec<String>> {
        let mut kinds: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (kind, values) in self.variants.iter().flat_map(|variant| &variant.categories) {
            let known = kinds.entry(kind.clone()).or_default();
            known.extend(values.keys().cloned());
            known.sort();
            known.dedup();
        }
        kinds
    }
}

fn summarize(variant: &Variant, rows: &[Option<&Row>]) -> VariantSummary {
    let rows: Vec<&Row> = rows.iter().copied().flatten().collect();
    let mut by_category: BTreeMap<String, BTreeMap<String, Vec<&Row>>> = BTreeMap::new();
    for row in &rows {
        for (kind, value) in &row.categories {
            by_category.entry(kind.clone()).or_default().entry(value.clone()).or_default().push(row);
        }
    }
    let categories = by_category.into_iter().map(|(kind, values)| {
        (kind, values.into_iter().map(|(value, rows)| (value, accuracy(rows.into_iter()))).collect())
    });
    let (kept, total) = rows.iter().fold((0, 0), |(kept, total), row| (kept + row.kept, total + row.visual_tokens));
    VariantSummary {
        name: variant.to_string(),
        method: variant.method_name(),
        budget: variant.budget_name(),
        all: accuracy(rows.iter().copied()),
        no_answer: rows.iter().filter(|row| row.predicted.is_none()).count(),
        kept_share: if total == 0 { 1.0 } else { kept as f64 / total as f64 },
        kept_mean: kept as f64 / rows.len().max(1) as f64,
        computed_share: match rows.len() {
            0 => 1.0,
            n => rows.iter().map(|row| row.computed).sum::<f64>() / n as f64,
        },
        categories: categories.collect(),
    }
}

/// Comparisons of dense with each variant, and of all pairs with the same budget.
fn compare_all(variants: &[Variant], answers: &[Vec<Option<&Row>>]) -> Vec<Comparison> {
    let mut found = Vec::new();
    for (i, (a, a_rows)) in variants.iter().zip(answers).enumerate() {
        for (b, b_rows) in variants.iter().zip(answers).skip(i + 1) {
            if a.method.prunes() && a.budget != b.budget {
                continue;
            }
            let mut paired = Paired::default();
            for (a, b) in a_rows.iter().zip(b_rows).filter_map(|(a, b)| a.zip(*b)) {
                paired.add(a.correct, b.correct);
            }
            found.push(Comparison {
                a: a.to_string(),
                b: b.to_string(),
                n: paired.n,
                only_a: paired.only_a,
                only_b: paired.only_b,
                difference: paired.difference(),
                interval: paired.interval(),
                p: paired.p_value(),
            });
        }
    }
    found
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

fn span(interval: [f64; 2]) -> String {
    format!("{:.1}–{:.1} %", interval[0] * 100.0, interval[1] * 100.0)
}

/// A table; the first column is aligned left, the others right.
fn columns(head: &[&str], rows: Vec<Vec<String>>) -> String {
    let head = head.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let short = |row: Vec<String>| row.into_iter().map(shortened).collect();
    let all: Vec<Vec<String>> = std::iter::once(head).chain(rows).map(short).collect();
    let n = all.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| all.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..n).map(|column| width(column).unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).enumerate().map(|(i, (cell, &width))| match i {
            0 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        cells.collect::<Vec<_>>().join("  ") + "\n"
    };
    all.iter().map(line).collect()
}

/// The text, with `…` instead of what exceeds [`WIDEST`].
fn shortened(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(WIDEST) {
        text.truncate(end);
        text.push('…');
    }
    text
}
