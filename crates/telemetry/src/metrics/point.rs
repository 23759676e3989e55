//! Points, and the line protocol of InfluxDB in which they come and go:
//! `measurement,tag=value field=1.5,other=2i 1700000000000000000`.

use std::collections::BTreeMap;
use std::fmt::Write;

/// The longest line that is read, bytes.
pub const LINE_MAX: usize = 64 * 1024;

/// A value of a field.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A number with a fraction.
    Float(f64),
    /// A whole number.
    Integer(i64),
    /// A whole number that is not negative (`u`).
    Unsigned(u64),
    /// True or false.
    Flag(bool),
    /// Text.
    Text(String),
}

impl Value {
    /// The number, if it is one.
    pub fn number(&self) -> Option<f64> {
        match self {
            Value::Float(number) => Some(*number),
            Value::Integer(number) => Some(*number as f64),
            Value::Unsigned(number) => Some(*number as f64),
            Value::Flag(_) | Value::Text(_) => None,
        }
    }
}

/// A point.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// The measurement.
    pub name: String,
    /// The tags.
    pub tags: BTreeMap<String, String>,
    /// The fields.
    pub fields: BTreeMap<String, Value>,
    /// When, nanoseconds since the Unix epoch; `None` = when it is received.
    pub at_ns: Option<i64>,
}

impl Point {
    /// A point without tags and fields.
    pub fn new(name: &str) -> Self {
        Self { name: name.into(), tags: BTreeMap::new(), fields: BTreeMap::new(), at_ns: None }
    }

    /// The point with one more tag. InfluxDB knows no empty tags: such a one is left out.
    pub fn tag(mut self, name: &str, value: &str) -> Self {
        if !value.is_empty() {
            self.tags.insert(name.into(), value.into());
        }
        self
    }

    /// The point with one more field.
    pub fn field(mut self, name: &str, value: Value) -> Self {
        self.fields.insert(name.into(), value);
        self
    }

    /// Reads a line. `None` if it is none.
    pub fn read(line: &str) -> Option<Self> {
        let mut reader = Reader { rest: line.trim_start() };
        let name = reader.word(&[',', ' '])?;
        let mut point = Point::new(&name);
        while reader.skip(',') {
            let tag = reader.word(&['='])?;
            reader.skip('=').then_some(())?;
            let value = reader.word(&[',', ' '])?;
            point.tags.insert(tag, value);
        }
        reader.blanks();
        loop {
            let field = reader.word(&['='])?;
            reader.skip('=').then_some(())?;
            let value = reader.value()?;
            point.fields.insert(field, value);
            if !reader.skip(',') {
                break;
            }
        }
        let at = reader.rest.trim();
        if !at.is_empty() {
            point.at_ns = Some(at.parse().ok()?);
        }
        Some(point)
    }

    /// Appends the line, with its end. A number that is none (NaN, infinite) is left out, since
    /// InfluxDB refuses it; nothing is written if no field is left.
    pub fn write(&self, out: &mut String, at_ns: i64) {
        let usable = |value: &&Value| value.number().is_none_or(f64::is_finite);
        let mut fields = self.fields.iter().filter(|(_, value)| usable(value)).peekable();
        if fields.peek().is_none() {
            return;
        }
        escape(out, &self.name, &[',', ' ']);
        for (name, value) in self.tags.iter().filter(|(_, value)| !value.is_empty()) {
            out.push(',');
            escape(out, name, &[',', ' ', '=']);
            out.push('=');
            escape(out, value, &[',', ' ', '=']);
        }
        let mut before = ' ';
        for (name, value) in fields {
            out.push(before);
            before = ',';
            escape(out, name, &[',', ' ', '=']);
            out.push('=');
            // Writing to a String never fails.
            let _ = match value {
                Value::Float(number) => write!(out, "{number}"),
                Value::Integer(number) => write!(out, "{number}i"),
                // InfluxDB 1.x has no unsigned fields by default.
                Value::Unsigned(number) => write!(out, "{}i", (*number).min(i64::MAX as u64)),
                Value::Flag(flag) => write!(out, "{flag}"),
                Value::Text(text) => {
                    out.push('"');
                    escape(out, text, &['"']);
                    out.push('"');
                    Ok(())
                }
            };
        }
        let _ = writeln!(out, " {}", self.at_ns.unwrap_or(at_ns));
    }
}

/// Escapes these characters and the backslash before them; a line break would end the line.
fn escape(out: &mut String, text: &str, special: &[char]) {
    let is_text = special == ['"'];
    let mut last = ' ';
    for c in text.chars() {
        match c {
            '\n' | '\r' if !is_text => out.push_str("\\ "),
            '\\' if is_text => out.push_str("\\\\"),
            c if special.contains(&c) => {
                out.push('\\');
                out.push(c);
            }
            c => out.push(c),
        }
        last = c;
    }
    if last == '\\' && !is_text {
        // A backslash at the end would escape what follows.
        out.push(' ');
    }
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    /// What comes before one of these characters, which stays; not empty.
    fn word(&mut self, ends: &[char]) -> Option<String> {
        let mut word = String::new();
        let mut chars = self.rest.char_indices();
        let mut end = self.rest.len();
        while let Some((at, c)) = chars.next() {
            match c {
                '\\' => match chars.clone().next() {
                    Some((_, next)) if matches!(next, ',' | ' ' | '=' | '\\') => {
                        chars.next();
                        word.push(next);
                    }
                    _ => word.push('\\'),
                },
                c if ends.contains(&c) => {
                    end = at;
                    break;
                }
                c => word.push(c),
            }
        }
        self.rest = &self.rest[end..];
        (!word.is_empty() && !self.rest.is_empty()).then_some(word)
    }

    fn skip(&mut self, c: char) -> bool {
        match self.rest.strip_prefix(c) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn blanks(&mut self) {
        self.rest = self.rest.trim_start_matches(' ');
    }

    fn value(&mut self) -> Option<Value> {
        if self.skip('"') {
            return self.text();
        }
        let end = self.rest.find([',', ' ']).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        Some(match word {
            "t" | "T" | "true" | "True" | "TRUE" => Value::Flag(true),
            "f" | "F" | "false" | "False" | "FALSE" => Value::Flag(false),
            word => match (word.strip_suffix('i'), word.strip_suffix('u')) {
                (Some(number), _) => Value::Integer(number.parse().ok()?),
                (_, Some(number)) => Value::Unsigned(number.parse().ok()?),
                _ => Value::Float(word.parse().ok().filter(|number: &f64| number.is_finite())?),
            },
        })
    }

    /// The rest of a text, up to its closing quotation mark.
    fn text(&mut self) -> Option<Value> {
        let mut text = String::new();
        let mut chars = self.rest.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.rest = &self.rest[at + 1..];
                    return Some(Value::Text(text));
                }
                '\\' => match chars.clone().next() {
                    Some((_, next)) if matches!(next, '"' | '\\') => {
                        chars.next();
                        text.push(next);
                    }
                    _ => text.push('\\'),
                },
                c => text.push(c),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_and_written_again() {
        let line = r#"a\ b,host=x\,y,z=1\=2 f=1.5,i=-3i,ok=true,s="q\"u \\ ,= é" 17"#;
        let point = Point::read(line).unwrap();
        assert_eq!(point.name, "a b");
        assert_eq!(point.tags["host"], "x,y");
        assert_eq!(point.tags["z"], "1=2");
        assert_eq!(point.fields["f"], Value::Float(1.5));
        assert_eq!(point.fields["i"], Value::Integer(-3));
        assert_eq!(point.fields["s"], Value::Text("q\"u \\ ,= é".into()));
        let mut out = String::new();
        point.write(&mut out, 99);
        assert_eq!(out, format!("{line}\n"));
    }

    #[test]
    fn a_line_without_a_time_has_that_of_its_arrival() {
        let mut out = String::new();
        Point::read("m f=1").unwrap().write(&mut out, 99);
        assert_eq!(out, "m f=1 99\n");
    }

    #[test]
    fn what_is_no_line_is_refused() {
        for line in [
            "",
            "m",
            "m f",
            "m f=",
            "m f=x",
            "m,t f=1",
            "m,t= f=1",
            "m f=\"open",
            "m f=1 x",
            "m f=1i2",
            ",t=1 f=1",
            "m f=1,",
            "m f=nan",
            "m f=inf",
        ] {
            assert_eq!(Point::read(line), None, "{line}");
        }
    }

    #[test]
    fn what_influxdb_refuses_is_never_written() {
        let point = Point::new("m\nx").tag("t", "a\nb\\").field("f", Value::Float(f64::NAN));
        let mut out = String::new();
        point.write(&mut out, 1);
        assert_eq!(out, "", "no field is left");
        point.field("g", Value::Unsigned(u64::MAX)).write(&mut out, 1);
        assert_eq!(out, format!("m\\ x,t=a\\ b\\  g={}i 1\n", i64::MAX));
    }
}
