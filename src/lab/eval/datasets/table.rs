//! Rows with named columns, from TSV, CSV and parquet.

use super::unusable;
use crate::error::{Error, Result};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use std::collections::BTreeMap;
use std::path::Path;

/// A value of a table.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    Text(String),
    List(Vec<String>),
}

/// One row: its location, and its columns or the reason why it cannot be read.
pub struct TableRow {
    pub place: String,
    pub cells: std::result::Result<BTreeMap<String, Cell>, String>,
}

/// The columns of a row.
pub struct Columns<'a>(pub &'a BTreeMap<String, Cell>);

impl Columns<'_> {
    /// The text in a required column.
    pub fn text(&self, name: &str) -> std::result::Result<String, String> {
        self.optional(name).ok_or_else(|| format!("the column \"{name}\" is missing or empty"))
    }

    /// The text in a column; `None` if it is missing or empty.
    pub fn optional(&self, name: &str) -> Option<String> {
        match self.0.get(name) {
            Some(Cell::Text(text)) if !text.is_empty() => Some(text.clone()),
            _ => None,
        }
    }

    /// The list in a column.
    pub fn list(&self, name: &str) -> Option<Vec<String>> {
        match self.0.get(name) {
            Some(Cell::List(list)) => Some(list.clone()),
            _ => None,
        }
    }
}

/// Reads the table at `path`, by its extension.
///
/// # Errors
/// [`Error::Unusable`] if it lacks one of the `required` columns, or is not such a table.
pub fn read(path: &Path, required: &[&str]) -> Result<Vec<TableRow>> {
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    let (columns, rows) = match extension.as_str() {
        "parquet" => read_parquet(path)?,
        "tsv" => read_separated(path, b'\t')?,
        _ => read_separated(path, b',')?,
    };
    match required.iter().find(|name| !columns.iter().any(|column| column == *name)) {
        Some(missing) => Err(unusable(path, format!("there is no column \"{missing}\", but {}", columns.join(", ")))),
        None => Ok(rows),
    }
}

fn read_separated(path: &Path, separator: u8) -> Result<(Vec<String>, Vec<TableRow>)> {
    let text = super::read(path)?;
    let mut reader = csv::ReaderBuilder::new().delimiter(separator).flexible(true).from_reader(text.as_bytes());
    let header = reader.headers().map_err(|error| unusable(path, format!("this is not a table: {error}")))?;
    let columns: Vec<String> = header.iter().map(|name| name.trim().to_owned()).collect();
    let mut rows = Vec::new();
    for record in reader.records() {
        // Errors of a record include its line.
        let line = record.as_ref().ok().and_then(|record| record.position()).map_or(0, csv::Position::line);
        let cells = match record {
            Err(error) => Err(error.to_string()),
            Ok(record) if record.len() != columns.len() => {
                Err(format!("there are {} columns in place of {}", record.len(), columns.len()))
            }
            Ok(record) => {
                let cells = record.iter().map(|value| Cell::Text(value.trim().to_owned()));
                Ok(columns.iter().cloned().zip(cells).collect())
            }
        };
        let place = if line > 0 { format!("{}:{line}", path.display()) } else { path.display().to_string() };
        rows.push(TableRow { place, cells });
    }
    Ok((columns, rows))
}

/// All rows of a parquet file. The crate that reads it panics on some damaged files.
fn read_parquet(path: &Path) -> Result<(Vec<String>, Vec<TableRow>)> {
    std::panic::catch_unwind(|| rows_of_parquet(path))
        .unwrap_or_else(|_| Err(unusable(path, "this parquet file cannot be read: it is damaged")))
}

fn rows_of_parquet(path: &Path) -> Result<(Vec<String>, Vec<TableRow>)> {
    let broken = |error: &dyn std::fmt::Display| unusable(path, format!("this parquet file cannot be read: {error}"));
    let file = std::fs::File::open(path).map_err(Error::io("opening the dataset", path))?;
    let reader = SerializedFileReader::new(file).map_err(|error| broken(&error))?;
    let schema = reader.metadata().file_metadata().schema();
    let columns = schema.get_fields().iter().map(|field| field.name().to_owned()).collect();
    let mut rows = Vec::new();
    for (index, row) in reader.get_row_iter(None).map_err(|error| broken(&error))?.enumerate() {
        // Rows after a broken page cannot be found.
        let row = row.map_err(|error| broken(&error))?;
        let cells = row.get_column_iter().filter_map(|(name, field)| Some((name.clone(), cell(field)?)));
        rows.push(TableRow { place: format!("{}, row {}", path.display(), index + 1), cells: Ok(cells.collect()) });
    }
    Ok((columns, rows))
}

/// The value of a parquet field; `None` for null.
fn cell(field: &Field) -> Option<Cell> {
    let text = |field: &Field| match field {
        Field::Str(text) => text.clone(),
        Field::Bytes(bytes) => String::from_utf8_lossy(bytes.data()).into_owned(),
        Field::Null => String::new(),
        other => other.to_string(),
    };
    match field {
        Field::Null => None,
        Field::ListInternal(list) => Some(Cell::List(list.elements().iter().map(text).collect())),
        other => Some(Cell::Text(text(other))),
    }
}
