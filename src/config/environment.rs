//! Variables of the environment that set directives: `STARLING_MAXMEMORY=1gb`.

/// What directives begin with in the environment.
pub(super) const PREFIX: &str = "STARLING_";

/// Whether a variable is one of those that Kubernetes (and Docker's links) give to every container beside a service whose
/// name begins with `starling`: `STARLING_PORT=tcp://10.0.0.1:6379`, `STARLING_SERVICE_HOST`,
/// `STARLING_SERVICE_PORT_CLIENTS`, `STARLING_PORT_6379_TCP_ADDR`. They say where a service is, not what this node shall do.
pub(super) fn is_of_a_service(name: &str, text: &str) -> bool {
    const PROTOCOLS: [&str; 3] = ["TCP", "UDP", "SCTP"];
    let is_url = PROTOCOLS.iter().any(|protocol| text.starts_with(&format!("{}://", protocol.to_ascii_lowercase())));
    if name.ends_with("_SERVICE_HOST") || name.ends_with("_SERVICE_PORT") || name.contains("_SERVICE_PORT_") {
        return true;
    }
    if name.ends_with("_PORT") && is_url {
        return true;
    }
    // ..._PORT_<number>_<protocol>, and behind it what of it is meant.
    let words: Vec<&str> = name.split('_').collect();
    let words = match words.split_last() {
        Some((&("ADDR" | "PORT" | "PROTO"), before)) => before,
        _ => &words[..],
    };
    match words {
        [.., "PORT", port, protocol] => port.parse::<u16>().is_ok() && PROTOCOLS.contains(protocol),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_of_services_are_told_from_directives() {
        for (name, text) in [
            ("STARLING_PORT", "tcp://10.0.0.1:6379"),
            ("STARLING_SERVICE_HOST", "10.0.0.1"),
            ("STARLING_SERVICE_PORT", "6379"),
            ("STARLING_SERVICE_PORT_CLIENTS", "6379"),
            ("STARLING_PORT_6379_TCP", "tcp://10.0.0.1:6379"),
            ("STARLING_PORT_6379_TCP_ADDR", "10.0.0.1"),
            ("STARLING_PORT_6379_TCP_PORT", "6379"),
            ("STARLING_PORT_6379_TCP_PROTO", "tcp"),
            ("STARLING_CLUSTER_PORT", "udp://10.0.0.1:16379"),
            ("STARLING_CLUSTER_PORT_16379_UDP_ADDR", "10.0.0.1"),
        ] {
            assert!(is_of_a_service(name, text), "{name}={text}");
        }
        for (name, text) in [
            ("STARLING_PORT", "7000"),
            ("STARLING_PORT", "abc"),
            ("STARLING_CLUSTER_PORT", "17000"),
            ("STARLING_CLUSTER_ANNOUNCE_PORT", "6379"),
            ("STARLING_PORT_X_TCP", "1"),
            ("STARLING_BIND", "10.0.0.1"),
        ] {
            assert!(!is_of_a_service(name, text), "{name}={text}");
        }
    }
}
