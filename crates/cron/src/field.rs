//! One of the five fields of a schedule: lists, ranges, steps, names.

/// A field: what it is called, and its values.
#[derive(Debug)]
pub(crate) struct Kind {
    pub name: &'static str,
    pub low: u32,
    pub high: u32,
    /// The names of the values, from `low` on.
    names: &'static [&'static str],
}

pub(crate) const MINUTE: Kind = Kind { name: "minute", low: 0, high: 59, names: &[] };
pub(crate) const HOUR: Kind = Kind { name: "hour", low: 0, high: 23, names: &[] };
pub(crate) const DAY: Kind = Kind { name: "day of month", low: 1, high: 31, names: &[] };
pub(crate) const MONTH: Kind = Kind {
    name: "month",
    low: 1,
    high: 12,
    names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
};
pub(crate) const WEEKDAY: Kind = Kind {
    name: "day of week",
    low: 0,
    high: 7,
    names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
};

/// The values of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Field {
    /// Bit n is set when value n is among them.
    pub bits: u64,
    /// Whether its first character is `*`: for hours and days this is more than all values.
    pub star: bool,
}

/// A remark about a field: where in its text, why, and what to do.
#[derive(Debug)]
pub(crate) struct Fault {
    pub offset: usize,
    pub why: String,
    pub help: String,
}

impl Fault {
    fn new(offset: usize, why: impl Into<String>, help: impl Into<String>) -> Self {
        Self { offset, why: why.into(), help: help.into() }
    }
}

impl Kind {
    /// Reads the text of a field, which holds no blanks. Doubts go to `doubts`.
    pub fn parse(&self, text: &str, doubts: &mut Vec<Fault>) -> Result<Field, Fault> {
        let mut reader = Reader { kind: self, text, at: 0 };
        let mut bits = 0;
        loop {
            bits |= reader.range(doubts)?;
            if !reader.take(',') {
                break;
            }
        }
        if bits == 0 {
            // All its ranges go backward.
            return Err(doubts.pop().unwrap_or_else(|| reader.backward(0, self.high, self.low)));
        }
        if reader.at < text.len() {
            // cron(8) skips to the next blank.
            let (rest, read) = (&text[reader.at..], &text[..reader.at]);
            doubts.push(Fault::new(
                reader.at,
                format!("cron(8) obeys {read} and ignores {rest}, which is behind a whole value"),
                format!("remove {rest}, or put a comma before it if it is another value"),
            ));
        }
        Ok(Field { bits, star: text.starts_with('*') })
    }

    fn values(&self) -> String {
        match self.names {
            [] => format!("{} to {}", self.low, self.high),
            [first, .., last] => {
                format!("{} to {}, or {first} to {last}", self.low, self.high)
            }
            [one] => (*one).to_string(),
        }
    }
}

struct Reader<'a> {
    kind: &'a Kind,
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    /// The bits of `*`, `N` or `N-M`, the first and the last also with `/STEP`.
    fn range(&mut self, doubts: &mut Vec<Fault>) -> Result<u64, Fault> {
        let begin = self.at;
        let (low, high) = if self.take('*') {
            (self.kind.low, self.kind.high)
        } else {
            let low = self.value()?;
            if !self.take('-') {
                return if self.text[self.at..].starts_with('/') {
                    Err(self.step_without_range(begin, low))
                } else {
                    Ok(1 << low)
                };
            }
            (low, self.value()?)
        };
        let step_at = self.at + 1;
        let step = if self.take('/') { self.step()? } else { 1 };
        if low > high {
            // cron(8) goes on with the rest of the list.
            doubts.push(self.backward(begin, low, high));
            return Ok(0);
        }
        if step > high - low && step > 1 {
            let why = format!("a step of {step} is longer than {low} to {high}");
            let help = format!(
                "write {low} if that is meant; a step does not reach into the next \
                                hour, day or month"
            );
            doubts.push(Fault::new(step_at, why, help));
        }
        let values = (low..=high).step_by(usize::try_from(step).unwrap_or(usize::MAX));
        Ok(values.fold(0, |bits, value| bits | 1 << value))
    }

    fn take(&mut self, c: char) -> bool {
        let is_there = self.text[self.at..].starts_with(c);
        self.at += usize::from(is_there);
        is_there
    }

    /// The letters and digits that come next.
    fn word(&mut self) -> &str {
        let rest = &self.text[self.at..];
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    /// A number or a name.
    fn value(&mut self) -> Result<u32, Fault> {
        let (begin, kind) = (self.at, self.kind);
        let word = self.word();
        let help = format!("write {}", kind.values());
        if word.is_empty() {
            return Err(Fault::new(begin, "a value is missing here", help));
        }
        let name = kind.names.iter().position(|name| name.eq_ignore_ascii_case(word));
        if let Some(name) = name.and_then(|name| u32::try_from(name).ok()) {
            return Ok(kind.low + name);
        }
        if !word.bytes().all(|b| b.is_ascii_digit()) {
            return Err(Fault::new(begin, format!("{word} is no {}", kind.name), help));
        }
        match word.parse() {
            Ok(number) if (kind.low..=kind.high).contains(&number) => Ok(number),
            _ => {
                let why = format!("{word} is not in {} to {}", kind.low, kind.high);
                Err(Fault::new(begin, why, help))
            }
        }
    }

    fn step(&mut self) -> Result<u32, Fault> {
        let begin = self.at;
        let word = self.word();
        let is_number = !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit());
        // Any longer step ends at the first value too.
        let step = if is_number { word.parse().unwrap_or(u32::MAX) } else { 0 };
        if step == 0 {
            let why = format!("the step behind / is {}", shown(word));
            return Err(Fault::new(begin, why, "write a number above 0, as in */5"));
        }
        Ok(step)
    }

    fn step_without_range(&self, begin: usize, low: u32) -> Fault {
        let high = self.kind.high;
        let help = format!("write {low}-{high}/STEP, or */STEP");
        Fault::new(begin, "a step is for * and ranges, not for one value", help)
    }

    fn backward(&self, begin: usize, low: u32, high: u32) -> Fault {
        let why = format!("the range {low}-{high} goes backward and holds no value");
        let (first, last) = (self.kind.low, self.kind.high);
        let help = match (self.kind.name == WEEKDAY.name, low, high) {
            (true, _, 0) if low != last => format!("write {low}-7: Sunday is 0 and 7"),
            (true, 7, _) => format!("write 0-{high}: Sunday is 0 and 7"),
            _ => format!("write {low}-{last},{first}-{high}"),
        };
        Fault::new(begin, why, help)
    }
}

fn shown(word: &str) -> &str {
    if word.is_empty() { "missing" } else { word }
}
