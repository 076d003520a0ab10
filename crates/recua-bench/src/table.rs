//! Markdown tables with aligned columns, which are readable without rendering.

use std::fmt;

/// Rows of cells under a header. The first column is aligned left, the others right.
pub(crate) struct Table(Vec<Vec<String>>);

impl Table {
    pub(crate) fn new(titles: &[&str]) -> Table {
        Table(vec![titles.iter().map(|title| title.to_string()).collect()])
    }

    /// Appends a row with one cell per title.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.0.push(cells.into_iter().collect());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths: Vec<usize> = (0..self.0[0].len())
            .map(|i| self.0.iter().map(|row| row[i].chars().count()).max().unwrap_or(0).max(3))
            .collect();
        for (n, row) in self.0.iter().enumerate() {
            for (i, (cell, width)) in row.iter().zip(&widths).enumerate() {
                if i == 0 { write!(f, "| {cell:<width$}")? } else { write!(f, " | {cell:>width$}")? }
            }
            writeln!(f, " |")?;
            if n == 0 {
                for (i, width) in widths.iter().enumerate() {
                    let rule = "-".repeat(width - 1);
                    if i == 0 { write!(f, "| {rule}-")? } else { write!(f, " | {rule}:")? }
                }
                writeln!(f, " |")?;
            }
        }
        Ok(())
    }
}
