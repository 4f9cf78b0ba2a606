//! What a client and its user have done, for the trace of a storm.

use fileshare::internals::client::session::Event;
use fileshare::internals::common::message::Request;

use super::SimulatedClient;
use super::files::names_of;

impl SimulatedClient {
    pub(super) fn trace(&mut self, text: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.trace {
            lines.push(text());
        }
    }

    pub(super) fn trace_event(&mut self, event: &Event) {
        match event {
            Event::Started { params, resumed, .. } => {
                let how = if *resumed { "resumes" } else { "has logged in" };
                self.trace(|| format!("{how}, as instance {}", params.instance.0));
            }
            Event::ConnectionLost => self.trace(|| "has lost the connection".into()),
            Event::Resynced(files) => self.trace(|| format!("has published {files} lost files again")),
            Event::LoggedOut => self.trace(|| "is logged out".into()),
            _ => {}
        }
    }
}

/// A request in a few words.
pub fn describe(request: &Request) -> String {
    let names = names_of(request);
    let names: Vec<&str> = names.iter().filter_map(|name| name.components().last()).collect();
    match request {
        Request::Publish { audience, .. } => format!("publish {} for {audience:?}", names.join(", ")),
        Request::Unpublish { .. } => format!("withdraw {}", names.join(", ")),
        Request::StageAudience { users, .. } => format!("stage an audience of {}", users.len()),
        Request::OwnPublications { .. } => "list the own publications".into(),
        Request::Peers { .. } => "list the peers".into(),
        _ => "search".into(),
    }
}
