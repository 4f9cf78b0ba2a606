//! The items that integration tests, benches and fuzz targets use. Not part of the public interface.
//!
//! Every item is listed by name, so that the compiler reports dead code in the modules.

pub mod client {
    pub mod cli {
        pub use crate::client::cli::command_line;
    }
    pub mod commands {
        pub use crate::client::commands::Verb;
    }
    pub mod control {
        pub use crate::client::control::{
            ControlHandle, Observer, PublishAudience, RequestError, ServerApi, SessionConfig, SessionControl,
        };
    }
    pub mod download {
        pub use crate::client::download::{
            Download, DownloadOptions, DownloadOutcome, DownloadReport, Downloader, OnExists, SaveAs, SourceDiscovery,
            SourceOffer,
        };
    }
    pub mod events {
        pub use crate::client::events::{
            EventBus, EventKind, EventStream, ListDifference, ListEntry, ListWatcher, Streamed, difference, merge,
        };
    }
    pub mod files {
        pub use crate::client::files::SharedFiles;
    }
    pub mod publications {
        pub use crate::client::publications::OwnPublications;
    }
    pub mod session {
        pub use crate::client::session::{
            ChangedList, Event, FinishedWait, LoginError, RequestError, RequestHandle, Session, SessionConfig,
            WaitCondition, WaitId, WaitOutcome, WatchedList,
        };
    }
    pub mod transport {
        pub use crate::client::transport::{TransportError, respond};
    }
    pub mod upload {
        pub use crate::client::upload::{Listener, UploadService};
    }
    pub mod message {
        pub use crate::client::ui::message::{
            AuthResult, AvailableFile, CommandEnd, CommandFailure, CommandId, CommandResult, EventKind, EventMessage,
            FileProgress, FoundFiles, GetResult, HelpResult, ItemFailure, Message, MessageBody, NameFailure, Note,
            NoteLevel, OwnFile, PeerList, PublishResult, PublishedList, UnpublishResult, WaitResult, WaitedFor,
            XitResult,
        };
    }
    pub mod shell {
        pub mod command {
            pub use crate::client::shell::command::parse;
        }
        pub mod path_arg {
            pub use crate::client::shell::path_arg::normalize;
        }
        pub mod tokenizer {
            pub use crate::client::shell::tokenizer::{Tokenizer, quote};
        }
    }
}

pub mod common {
    pub mod chunk_tree {
        pub use crate::common::chunk_tree::{GroupHash, GroupHasher, GroupHashes, group_count, group_range};
    }
    pub mod crypto {
        pub use crate::common::crypto::{AeadKey, Secret, TAG_BYTES, counter_nonce};
    }
    pub mod glob {
        pub use crate::common::glob::Pattern;
    }
    pub mod limits {
        pub use crate::common::limits::{
            COMMAND_TIMEOUT, DATAGRAM_MAX_BYTES, HEARTBEAT_DEFAULT, LIVENESS_DEFAULT, PROTOCOL_VERSION,
            RECORD_MAX_BYTES, SUBSCRIPTIONS_MAX, TICKET_MAX_BYTES, USER_NAME_MAX_BYTES,
        };
    }
    pub mod handshake_keys {
        pub use crate::common::handshake_keys::{ClientInfo, LoginResult, SessionParams};
    }
    pub mod message {
        pub use crate::common::message::{
            ActivePeer, AudienceRef, AvailableContent, ClientMessage, Cursor, Heartbeat, NameQuery, OwnPublication,
            Quota, Request, ResolvePurpose, Response, ServerMessage, SourceGrant, SubscriptionState, Topic,
        };
    }
    pub mod opaque {
        pub use crate::common::opaque::{ClientLogin, KeyStretching, PasswordRecord, ServerLogin};
    }
    pub mod packet {
        pub use crate::common::packet::{KE1_BYTES, KE3_BYTES, Packet};
    }
    pub mod peer_crypto {
        pub use crate::common::peer_crypto::{Frame, Initiator, Preamble, record_bytes, respond};
    }
    pub mod peer_message {
        pub use crate::common::peer_message::{DirectSocket, GroupRange, PeerRequest, PeerResponse, RefusalReason};
    }
    pub mod session_cipher {
        pub use crate::common::session_cipher::{SessionCipher, Side};
    }
    pub mod ticket {
        pub use crate::common::ticket::TransferTicket;
    }
    pub mod types {
        pub use crate::common::types::{
            Audience, Content, ContentHash, ContentRef, FileName, InstanceId, NamedContent, PublicationsDigest,
            RequestId, SessionId, UserName, UsersDigest,
        };
    }
}

pub mod server {
    pub mod auth {
        pub mod credentials {
            pub use crate::server::auth::credentials::{Credential, Credentials, record_line};
        }
    }
    pub mod cli {
        pub use crate::server::cli::{LogFormat, ServeOptions, command_line};
    }
    pub mod core {
        pub use crate::server::core::{
            Datagram, Effects, LoadedState, OnlineUser, Quotas, ReceiveBuffer, Server, ServerConfig,
        };
    }
    pub mod index {
        pub use crate::server::index::{Budget, Index, OwnerId, Position};
    }
    pub mod socket {
        pub use crate::server::socket::{BATCH_MAX, ReceiveBatch, ServerSocket};
    }
    pub mod journal {
        pub use crate::server::journal::{
            Change, Journal, JournalError, JournalSeq, LastMutation, LoadSink, Mutation, SqliteStore, Store,
            StoreError, StoredPublication,
        };
    }
    pub mod run {
        pub use crate::server::run::serve_with_journal;
    }
}
