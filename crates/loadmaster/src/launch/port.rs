//! A port to listen on.

use super::LaunchError;
use std::net::TcpListener;

/// The port asked for if it is free, or one that the system chooses. It is let go again for the engine to take, so that
/// another program could be faster; the engine then ends, and says so.
pub(super) fn choose(host: &str, port: Option<u16>) -> Result<u16, LaunchError> {
    let error = |source| LaunchError::Port { host: host.to_owned(), port: port.unwrap_or(0), source };
    let listener = TcpListener::bind((host, port.unwrap_or(0))).map_err(error)?;
    Ok(listener.local_addr().map_err(error)?.port())
}

/// Where a client on this machine reaches a server that listens on `host`.
pub(super) fn url(host: &str, port: u16) -> String {
    match host {
        "0.0.0.0" => format!("http://127.0.0.1:{port}"),
        "::" | "[::]" => format!("http://[::1]:{port}"),
        host if host.contains(':') && !host.starts_with('[') => format!("http://[{host}]:{port}"),
        host => format!("http://{host}:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_an_error_and_a_free_one_is_found() {
        let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let error = choose("127.0.0.1", Some(port)).unwrap_err();
        assert!(error.to_string().contains(&port.to_string()) && error.exit_code() == 2, "{error}");
        assert_ne!(choose("127.0.0.1", None).unwrap(), 0);
        assert!(choose("no.such.host.invalid", None).is_err());
    }

    #[test]
    fn clients_go_to_the_loopback_of_a_server_that_listens_everywhere() {
        assert_eq!(url("0.0.0.0", 80), "http://127.0.0.1:80");
        assert_eq!(url("::", 80), "http://[::1]:80");
        assert_eq!(url("::1", 80), "http://[::1]:80");
        assert_eq!(url("localhost", 80), "http://localhost:80");
    }
}
