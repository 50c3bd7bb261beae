//! What a parameter may be: how its text is checked, and how CONFIG GET shows it.

use crate::base::number;

/// The type of a parameter.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Bool,
    Integer {
        least: i64,
        greatest: i64,
    },
    /// File permissions: octal digits.
    Mode,
    /// Bytes, with a unit.
    Memory {
        least: i64,
        greatest: i64,
    },
    /// One of these words.
    Choice(&'static [&'static str]),
    Text,
    /// Without a path.
    FileName,
    /// Words separated by blanks.
    Words,
    /// Numbers of 0 to 100.
    Percentiles,
    /// Pairs of seconds and changes.
    SavePoints,
    /// `<class> <hard> <soft> <seconds>`, any number of times.
    OutputLimits,
    /// Letters for classes of keyspace events.
    EventClasses,
}

/// All that `chmod` may allow to owner, group and others.
const MODE_MAX: i64 = 0o777;

/// The classes that have output limits, as CONFIG GET names and orders them.
const CLASSES: [&str; 3] = ["normal", "slave", "pubsub"];

/// Checks the words given for a parameter and returns its text as CONFIG GET shows it. `current` is what it is now.
///
/// The error is what Redis says behind "CONFIG SET failed".
pub fn check(kind: Kind, words: &[String], current: &str) -> Result<String, String> {
    match kind {
        Kind::Words => Ok(words.join(" ").split_ascii_whitespace().collect::<Vec<_>>().join(" ")),
        Kind::Percentiles => check_percentiles(words),
        Kind::SavePoints => check_save_points(words),
        Kind::OutputLimits => check_output_limits(words, current),
        _ => match words {
            [word] => check_one(kind, word),
            [] if matches!(kind, Kind::Text) => Ok(String::new()),
            _ => Err("wrong number of arguments".to_owned()),
        },
    }
}

fn check_one(kind: Kind, word: &str) -> Result<String, String> {
    match kind {
        Kind::Bool => match word.to_ascii_lowercase().as_str() {
            "yes" => Ok("yes".to_owned()),
            "no" => Ok("no".to_owned()),
            _ => Err("argument must be 'yes' or 'no'".to_owned()),
        },
        Kind::Integer { least, greatest } => {
            let value = number::parse_i64(word.as_bytes()).ok_or("argument couldn't be parsed into an integer")?;
            bounded(value, least, greatest)
        }
        Kind::Mode => {
            let value = i64::from_str_radix(word, 8).map_err(|_| "argument couldn't be parsed into an integer")?;
            match value {
                0..=MODE_MAX => Ok(format!("{value:o}")),
                _ => Err(format!("argument must be between 0 and {MODE_MAX:o} inclusive")),
            }
        }
        Kind::Memory { least, greatest } => {
            let value = parse_memory(word).ok_or("argument must be a memory value")?;
            bounded(value, least, greatest)
        }
        Kind::Choice(choices) => choices
            .iter()
            .find(|choice| choice.eq_ignore_ascii_case(word))
            .map(|choice| (*choice).to_owned())
            .ok_or_else(|| format!("argument(s) must be one of the following: {}", choices.join(", "))),
        Kind::EventClasses => check_event_classes(word),
        Kind::FileName if word.is_empty() || word.contains('/') => {
            Err("it can't be a path, just a filename".to_owned())
        }
        Kind::Text | Kind::FileName | Kind::Words | Kind::Percentiles | Kind::SavePoints | Kind::OutputLimits => {
            Ok(word.to_owned())
        }
    }
}

fn bounded(value: i64, least: i64, greatest: i64) -> Result<String, String> {
    if (least..=greatest).contains(&value) {
        Ok(value.to_string())
    } else {
        Err(format!("argument must be between {least} and {greatest} inclusive"))
    }
}

/// Bytes with an optional unit: `k` is a thousand, `kb` is 1024, and so on to `gb`.
pub fn parse_memory(word: &str) -> Option<i64> {
    let digits = word.find(|c: char| !c.is_ascii_digit() && c != '-').unwrap_or(word.len());
    let (number, unit) = word.split_at(digits);
    let scale = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" => 1000,
        "kb" => 1 << 10,
        "m" => 1_000_000,
        "mb" => 1 << 20,
        "g" => 1_000_000_000,
        "gb" => 1 << 30,
        _ => return None,
    };
    // Redis reads no digits at all as 0.
    let value = if number.is_empty() { 0 } else { number.parse::<i64>().ok()?.checked_mul(scale)? };
    (value >= 0).then_some(value)
}

fn check_percentiles(words: &[String]) -> Result<String, String> {
    let mut shown = Vec::new();
    for word in words.join(" ").split_ascii_whitespace() {
        let number = word.parse::<f64>().map_err(|_| "Invalid latency-tracking-info-percentiles parameters")?;
        if !(0.0..=100.0).contains(&number) {
            return Err("latency-tracking-info-percentiles parameters should sit between [0.0,100.0]".to_owned());
        }
        // Six digits at most, as Redis shows and compares them.
        let digits = format!("{number:.6}");
        shown.push(digits.trim_end_matches('0').trim_end_matches('.').to_owned());
    }
    Ok(shown.join(" "))
}

fn check_save_points(words: &[String]) -> Result<String, String> {
    let joined = words.join(" ");
    let numbers: Vec<&str> = joined.split_ascii_whitespace().collect();
    let valid = numbers.len().is_multiple_of(2)
        && numbers.chunks(2).all(|pair| {
            let parsed: Vec<Option<i64>> = pair.iter().map(|number| number::parse_i64(number.as_bytes())).collect();
            matches!(parsed[..], [Some(1..), Some(0..)])
        });
    if valid { Ok(numbers.join(" ")) } else { Err("Invalid save parameters".to_owned()) }
}

fn check_output_limits(words: &[String], current: &str) -> Result<String, String> {
    let joined = words.join(" ");
    let words: Vec<&str> = joined.split_ascii_whitespace().collect();
    if !words.len().is_multiple_of(4) {
        return Err("Wrong number of arguments in buffer limit configuration.".to_owned());
    }
    let mut limits: Vec<Vec<String>> =
        current.split_ascii_whitespace().map(str::to_owned).collect::<Vec<_>>().chunks(4).map(<[_]>::to_vec).collect();
    for group in words.chunks(4) {
        let class = group[0].to_ascii_lowercase();
        let class = if class == "replica" { "slave" } else { class.as_str() };
        let index = CLASSES
            .iter()
            .position(|known| *known == class)
            .ok_or("Invalid client class specified in buffer limit configuration.")?;
        let invalid = "Error in hard, soft or soft_seconds setting in buffer limit configuration.";
        let hard = parse_memory(group[1]).ok_or(invalid)?;
        let soft = parse_memory(group[2]).ok_or(invalid)?;
        let seconds = number::parse_i64(group[3].as_bytes()).filter(|seconds| *seconds >= 0).ok_or(invalid)?;
        if let Some(limit) = limits.get_mut(index) {
            *limit = vec![CLASSES[index].to_owned(), hard.to_string(), soft.to_string(), seconds.to_string()];
        }
    }
    Ok(limits.concat().join(" "))
}

/// Redis prints the classes in an order of its own, `A` standing for most of them; beside `A` it leaves `n` out.
fn check_event_classes(word: &str) -> Result<String, String> {
    const ALL: &str = "g$lshzxetd";
    const ORDER: &str = "g$lshzxetdnKEm";
    let mut given = String::new();
    for class in word.chars() {
        match class {
            'A' => given.push_str(ALL),
            class if ORDER.contains(class) => given.push(class),
            _ => return Err("Invalid event class character. Use 'Ag$lshzxeKEtmdn'.".to_owned()),
        }
    }
    let has_all = ALL.chars().all(|class| given.contains(class));
    let mut text = if has_all { "A".to_owned() } else { String::new() };
    // Redis does not show `n` beside `A`, though it acts; what is shown here is what acts.
    text.extend(ORDER.chars().filter(|class| given.contains(*class) && !(has_all && ALL.contains(*class))));
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_kind(kind: Kind, given: &str, expected: Result<&str, &str>) {
        let words: Vec<String> = given.split(' ').map(str::to_owned).collect();
        let current = "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60";
        assert_eq!(check(kind, &words, current).as_deref().map_err(String::as_str), expected, "{given}");
    }

    #[test]
    fn values_have_the_text_that_config_get_shows() {
        check_kind(Kind::Bool, "YES", Ok("yes"));
        check_kind(Kind::Bool, "on", Err("argument must be 'yes' or 'no'"));
        check_kind(Kind::Memory { least: 0, greatest: i64::MAX }, "1gb", Ok("1073741824"));
        check_kind(Kind::Memory { least: 0, greatest: i64::MAX }, "2k", Ok("2000"));
        check_kind(Kind::Memory { least: 0, greatest: i64::MAX }, "2x", Err("argument must be a memory value"));
        check_kind(Kind::Integer { least: 1, greatest: 5 }, "6", Err("argument must be between 1 and 5 inclusive"));
        check_kind(Kind::Mode, "0770", Ok("770"));
        check_kind(Kind::Mode, "1000", Err("argument must be between 0 and 777 inclusive"));
        check_kind(Kind::Mode, "9", Err("argument couldn't be parsed into an integer"));
        check_kind(Kind::Percentiles, "50.5 0 100 99.90", Ok("50.5 0 100 99.9"));
        check_kind(Kind::Percentiles, "50 x", Err("Invalid latency-tracking-info-percentiles parameters"));
        let beyond = "latency-tracking-info-percentiles parameters should sit between [0.0,100.0]";
        check_kind(Kind::Percentiles, "50 101", Err(beyond));
        check_kind(Kind::SavePoints, "900 1 60 5", Ok("900 1 60 5"));
        check_kind(Kind::SavePoints, "900", Err("Invalid save parameters"));
        check_kind(
            Kind::OutputLimits,
            "pubsub 1mb 0 0",
            Ok("normal 0 0 0 slave 268435456 67108864 60 pubsub 1048576 0 0"),
        );
        check_kind(Kind::EventClasses, "KEA", Ok("AKE"));
        check_kind(Kind::EventClasses, "El", Ok("lE"));
        check_kind(Kind::EventClasses, "KEn", Ok("nKE"));
        check_kind(Kind::EventClasses, "Kg$lshzxetdmn", Ok("AnKm"));
        check_kind(Kind::Memory { least: 0, greatest: i64::MAX }, "", Ok("0"));
        check_kind(Kind::Memory { least: 0, greatest: i64::MAX }, "-1", Err("argument must be a memory value"));
    }
}
