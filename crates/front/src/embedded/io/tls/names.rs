//! Names in certificates as text, and what else is needed of DER (X.690).

/// An element: its tag, its content, and what follows it. `None` for what is no DER.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            let length = bytes.iter().fold(0usize, |sum, byte| (sum << 8) | usize::from(*byte));
            (length, rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// The elements of a sequence or a set, up to the first that is none.
fn elements(mut der: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let (tag, content, rest) = element(der)?;
        der = rest;
        Some((tag, content))
    })
}

/// A distinguished name as RFC 2253 writes it, the last part first, byte for byte as OpenSSL and so
/// nginx does (`XN_FLAG_RFC2253`): `CN=reader,O=Example`. `der` is the content of the sequence.
pub fn distinguished_name(der: &[u8]) -> String {
    let mut parts: Vec<String> = elements(der)
        .map(|(_, set)| {
            let mut pairs: Vec<String> = elements(set).map(|(_, pair)| attribute(pair)).collect();
            pairs.reverse();
            pairs.join("+")
        })
        .collect();
    parts.reverse();
    parts.join(",")
}

fn attribute(pair: &[u8]) -> String {
    let mut both = elements(pair);
    let (Some((_, kind)), Some((tag, value))) = (both.next(), both.next()) else {
        return String::new();
    };
    match (short_name(kind), characters(tag, value)) {
        (Some(name), Some(value)) => format!("{name}={}", escaped(&value)),
        (Some(name), None) => format!("{name}=#{}", hex(&whole(tag, value))),
        (None, _) => format!("{}=#{}", dotted(kind), hex(&whole(tag, value))),
    }
}

/// A string of one of the types that are written as text, in UTF-8.
fn characters(tag: u8, value: &[u8]) -> Option<Vec<u8>> {
    let text = |numbers: &mut dyn Iterator<Item = u32>| -> Option<Vec<u8>> {
        let text: Option<String> = numbers.map(char::from_u32).collect();
        text.map(String::into_bytes)
    };
    let wide =
        |size| value.chunks_exact(size).map(|b| b.iter().fold(0, |n, b| n << 8 | u32::from(*b)));
    match tag {
        // UTF8String.
        0x0c => Some(value.to_vec()),
        // NumericString, PrintableString, TeletexString, IA5String, both times, VisibleString: a
        // byte is a character.
        0x12..=0x14 | 0x16..=0x18 | 0x1a => text(&mut value.iter().map(|byte| u32::from(*byte))),
        // UniversalString and BMPString.
        0x1c => text(&mut wide(4)),
        0x1e => text(&mut wide(2)),
        _ => None,
    }
}

/// The whole element again.
fn whole(tag: u8, value: &[u8]) -> Vec<u8> {
    let length = value.len().to_be_bytes();
    let used = length.iter().skip_while(|byte| **byte == 0).copied().collect::<Vec<u8>>();
    let head = match value.len() {
        ..=0x7f => vec![tag, value.len() as u8],
        _ => [&[tag, 0x80 | used.len() as u8][..], &used].concat(),
    };
    [&head, value].concat()
}

/// The short names that OpenSSL has for attributes of names. The value of any other one is written
/// as its bytes.
fn short_name(kind: &[u8]) -> Option<&'static str> {
    /// 2.5.4.3 and what follows.
    const OF_X500: &str = "CN SN serialNumber C L ST street O OU title description searchGuide \
        businessCategory postalAddress postalCode postOfficeBox \
        physicalDeliveryOfficeName telephoneNumber telexNumber teletexTerminalIdentifier \
        facsimileTelephoneNumber x121Address internationaliSDNNumber registeredAddress \
        destinationIndicator preferredDeliveryMethod presentationAddress \
        supportedApplicationContext member owner roleOccupant seeAlso userPassword \
        userCertificate cACertificate authorityRevocationList certificateRevocationList \
        crossCertificatePair name GN initials generationQualifier x500UniqueIdentifier \
        dnQualifier enhancedSearchGuide protocolInformation distinguishedName \
        uniqueMember houseIdentifier supportedAlgorithms deltaRevocationList dmdName";
    match kind {
        [0x55, 4, 65] => Some("pseudonym"),
        [0x55, 4, 72] => Some("role"),
        [0x55, 4, 97] => Some("organizationIdentifier"),
        [0x55, 4, 98] => Some("c3"),
        [0x55, 4, 99] => Some("n3"),
        [0x55, 4, 100] => Some("dnsName"),
        [0x55, 4, last] => OF_X500.split(' ').nth(usize::from(*last).checked_sub(3)?),
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1] => Some("emailAddress"),
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 2] => Some("unstructuredName"),
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 8] => Some("unstructuredAddress"),
        // Where a company is registered (CA/Browser Forum, EV guidelines).
        [0x2b, 6, 1, 4, 1, 0x82, 0x37, 60, 2, 1, last @ 1..=3] => {
            Some(["jurisdictionL", "jurisdictionST", "jurisdictionC"][usize::from(*last) - 1])
        }
        [0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 1] => Some("UID"),
        [0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 3] => Some("mail"),
        [0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25] => Some("DC"),
        _ => None,
    }
}

/// A serial number as OpenSSL writes it: its digits without the byte that only says that it is
/// positive.
pub fn serial(number: &[u8]) -> String {
    match number {
        [0, rest @ ..] if !rest.is_empty() => hex(rest),
        _ => hex(number),
    }
}

/// An object identifier in its dotted form.
fn dotted(kind: &[u8]) -> String {
    let mut numbers: Vec<u64> = Vec::new();
    let mut number = 0u64;
    for byte in kind {
        number = (number << 7) | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            if numbers.is_empty() {
                let first = (number / 40).min(2);
                numbers.push(first);
                number -= first * 40;
            }
            numbers.push(number);
            number = 0;
        }
    }
    numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(".")
}

/// A value with what has a meaning in names, and all that is not visible ASCII, escaped: it can be
/// a field of a head, and nobody can add a part to his name.
fn escaped(value: &[u8]) -> String {
    let mut text = String::new();
    for (at, &byte) in value.iter().enumerate() {
        let is_end = at == 0 || at + 1 == value.len();
        match byte {
            b',' | b'+' | b'"' | b'\\' | b'<' | b'>' | b';' => {
                text.push('\\');
                text.push(char::from(byte));
            }
            b'#' if at == 0 => text.push_str("\\#"),
            b' ' if is_end => text.push_str("\\ "),
            b' '..=b'~' => text.push(char::from(byte)),
            _ => text.push_str(&format!("\\{byte:02X}")),
        }
    }
    text
}

/// When a certificate ends, seconds since the Unix epoch; `None` where that cannot be read.
pub fn not_after(certificate: &[u8]) -> Option<i64> {
    let (_, certificate, _) = element(certificate)?;
    let (_, signed, _) = element(certificate)?;
    // [version], serial number, algorithm, issuer, validity (RFC 5280, 4.1).
    let validity = elements(signed).filter(|(tag, _)| *tag != 0xa0).nth(3)?.1;
    let (tag, time) = elements(validity).nth(1)?;
    let text = std::str::from_utf8(time).ok()?;
    let format = if tag == 0x17 { "%y%m%d%H%M%SZ" } else { "%Y%m%d%H%M%SZ" };
    // Two digits of a year mean 1950 to 2049 (RFC 5280, 4.1.2.5.1).
    let text = match (tag, text.get(..2)?.parse::<u32>().ok()?) {
        (0x17, year) => format!("{}{text}", if year >= 50 { 19 } else { 20 }),
        _ => text.to_string(),
    };
    let format = if tag == 0x17 { "%Y%m%d%H%M%SZ" } else { format };
    let parsed = jiff::civil::DateTime::strptime(format, &text).ok()?;
    Some(parsed.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_second())
}

/// Bytes in hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}

/// Bytes in base64 (RFC 4648).
pub fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let at = |place: usize| u32::from(three.get(place).copied().unwrap_or(0));
        let bits = (at(0) << 16) | (at(1) << 8) | at(2);
        for digit in 0..4 {
            match digit <= three.len() {
                true => text.push(char::from(DIGITS[(bits >> (18 - 6 * digit)) as usize & 63])),
                false => text.push('='),
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An element with this tag.
    fn der(tag: u8, content: &[u8]) -> Vec<u8> {
        let mut all = vec![tag, 0x82, (content.len() >> 8) as u8, content.len() as u8];
        all.extend_from_slice(content);
        all
    }

    fn part(kind: &[u8], tag: u8, value: &[u8]) -> Vec<u8> {
        der(0x31, &der(0x30, &[der(6, kind), der(tag, value)].concat()))
    }

    #[test]
    fn a_name_is_written_from_its_end_and_nobody_adds_a_part_to_it() {
        let name = [
            part(&[0x55, 4, 6], 0x13, b"DE"),
            part(&[0x55, 4, 10], 0x0c, b"Wetter, CN=root\r\nX: 1"),
            part(&[0x2a, 0x03, 0x83, 0x74], 0x0c, b"z"),
            part(&[0x55, 4, 3], 0x0c, "#j\u{fc}rg ".as_bytes()),
        ];
        let text = distinguished_name(&name.concat());
        let expected =
            "CN=\\#j\\C3\\BCrg\\ ,1.2.3.500=#0C017A,O=Wetter\\, CN=root\\0D\\0AX: 1,C=DE";
        assert_eq!(text, expected);
    }

    #[test]
    fn bytes_that_are_no_name_make_no_panic() {
        for length in 0..6 {
            for byte in 0..=255 {
                let _ = distinguished_name(&vec![byte; length]);
                let _ = not_after(&vec![byte; length]);
            }
        }
        assert_eq!(distinguished_name(&[0x31, 0x84, 0xff, 0xff, 0xff, 0xff]), "");
    }

    #[test]
    fn the_end_of_a_certificate_is_read_in_both_forms() {
        for (tag, text, expected) in [
            (0x17, "261127001500Z", Some(1_795_738_500)),
            (0x18, "20261127001500Z", Some(1_795_738_500)),
            (0x17, "500101000000Z", Some(-631_152_000)),
            (0x17, "nonsense", None),
        ] {
            let validity =
                der(0x30, &[der(0x17, b"000101000000Z"), der(tag, text.as_bytes())].concat());
            let signed = [der(0xa0, &[]), der(2, &[1]), der(0x30, &[]), der(0x30, &[]), validity];
            let certificate = der(0x30, &der(0x30, &signed.concat()));
            assert_eq!(not_after(&certificate), expected, "{text}");
        }
    }

    #[test]
    fn base64_is_that_of_the_standard() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v")] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }
}
