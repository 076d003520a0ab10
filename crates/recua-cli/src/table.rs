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
    // How wide the columns are at least.
    widths_min: Vec<usize>,
}

impl Table {
    pub(crate) fn new(titles: &[&str]) -> Self {
        let columns: Vec<_> =
            titles.iter().map(|t| (t.trim_start_matches('<').to_owned(), t.starts_with('<'))).collect();
        Self { widths_min: vec![0; columns.len()], columns, rows: Vec::new() }
    }

    /// Leaves room for cells as wide as these, for a table whose rows are written one by one.
    pub(crate) fn with_room_for(mut self, cells: &[&str]) -> Self {
        let widths = cells.iter().map(|cell| cell.chars().count());
        self.widths_min = widths.chain(std::iter::repeat(0)).take(self.columns.len()).collect();
        self
    }

    /// Appends a row; missing cells are empty.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let mut row: Vec<String> = cells.into_iter().collect();
        row.resize(self.columns.len(), String::new());
        self.rows.push(row);
    }

    pub(crate) fn write(&self, out: &mut impl Write, style: Style) -> io::Result<()> {
        self.write_head(out, style)?;
        let widths = self.widths();
        self.rows.iter().try_for_each(|row| self.write_row(out, style, &widths, row))
    }

    /// Writes the row that was appended last.
    pub(crate) fn write_last(&self, out: &mut impl Write, style: Style) -> io::Result<()> {
        self.rows.last().map_or(Ok(()), |row| self.write_row(out, style, &self.widths(), row))
    }

    /// Writes the titles.
    pub(crate) fn write_head(&self, out: &mut impl Write, style: Style) -> io::Result<()> {
        let widths = self.widths();
        let titles: Vec<String> = self.columns.iter().map(|(title, _)| title.clone()).collect();
        self.write_row(out, style, &widths, &titles)?;
        if style == Style::Markdown {
            let rule = self.columns.iter().zip(&widths).map(|((_, left), width)| {
                if *left { "-".repeat(*width) } else { format!("{}:", "-".repeat(width - 1)) }
            });
            writeln!(out, "| {} |", rule.collect::<Vec<_>>().join(" | "))?;
        }
        Ok(())
    }

    fn widths(&self) -> Vec<usize> {
        let width = |i: usize, title: &str| {
            let cells = self.rows.iter().map(|row| row[i].chars().count());
            // A markdown rule needs three characters.
            cells.max().unwrap_or(0).max(title.chars().count()).max(self.widths_min[i]).max(3)
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

    #[test]
    fn rows_written_one_by_one_align() {
        let mut table = Table::new(&["<name", "n"]).with_room_for(&["long name", "1000"]);
        let mut out = Vec::new();
        table.write_head(&mut out, Style::Plain).unwrap();
        for (name, n) in [("a", "1"), ("long name", "1000")] {
            table.row([name.into(), n.into()]);
            table.write_last(&mut out, Style::Plain).unwrap();
        }
        assert_eq!(String::from_utf8(out).unwrap(), "name          n\na             1\nlong name  1000\n");
    }
}
