//! A table of text, aligned for a terminal or as markdown.

use std::io::{self, Write};

/// How a table is written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// Columns padded with spaces.
    Plain,
    /// A markdown table, padded as well, so that it can be read before it is rendered.
    Markdown,
}

/// Rows of cells under a header. A column whose title starts with `<` is aligned to the left, all others to the
/// right.
pub(crate) struct Table {
    // The title without its `<`, and whether the column is left-aligned.
    columns: Vec<(String, bool)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(titles: &[&str]) -> Self {
        let columns =
            titles.iter().map(|t| (t.trim_start_matches('<').to_owned(), t.starts_with('<'))).collect();
        Self { columns, rows: Vec::new() }
    }

    /// Appends a row; missing cells are empty.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let mut row: Vec<String> = cells.into_iter().collect();
        row.resize(self.columns.len(), String::new());
        self.rows.push(row);
    }

    pub(crate) fn write(&self, out: &mut impl Write, style: Style) -> io::Result<()> {
        let widths = self.widths();
        let titles: Vec<String> = self.columns.iter().map(|(title, _)| title.clone()).collect();
        self.write_row(out, style, &widths, &titles)?;
        if style == Style::Markdown {
            let rule = self.columns.iter().zip(&widths).map(|((_, left), width)| {
                if *left { "-".repeat(*width) } else { format!("{}:", "-".repeat(width - 1)) }
            });
            writeln!(out, "| {} |", rule.collect::<Vec<_>>().join(" | "))?;
        }
        self.rows.iter().try_for_each(|row| self.write_row(out, style, &widths, row))
    }

    fn widths(&self) -> Vec<usize> {
        let width = |i: usize, title: &str| {
            let cells = self.rows.iter().map(|row| row[i].chars().count());
            // A markdown rule needs three characters.
            cells.max().unwrap_or(0).max(title.chars().count()).max(3)
        };
        self.columns.iter().enumerate().map(|(i, (title, _))| width(i, title)).collect()
    }

    fn write_row(
        &self,
        out: &mut impl Write,
        style: Style,
        widths: &[usize],
        cells: &[String],
    ) -> io::Result<()> {
        let padded = self.columns.iter().zip(widths).zip(cells).map(|(((_, left), width), cell)| {
            if *left { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        let padded: Vec<_> = padded.collect();
        match style {
            Style::Plain => writeln!(out, "{}", padded.join("  ").trim_end()),
            Style::Markdown => writeln!(out, "| {} |", padded.join(" | ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_styles_align() {
        let mut table = Table::new(&["<name", "n"]);
        table.row(["a".into(), "1".into()]);
        table.row(["long name".into(), "1000".into()]);
        let text = |style| {
            let mut out = Vec::new();
            table.write(&mut out, style).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(text(Style::Plain), "name          n\na             1\nlong name  1000\n");
        assert_eq!(
            text(Style::Markdown),
            "| name      |    n |\n| --------- | ---: |\n| a         |    1 |\n| long name | 1000 |\n"
        );
    }
}
