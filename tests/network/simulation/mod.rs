//! The network, its users and its storms. The fuzz target `network` includes this folder, and no other file of these tests.

pub mod choices;
pub mod faulty_link;
pub mod liveness;
pub mod simulated_client;
pub mod simulated_journal;
pub mod simulated_list;
pub mod simulated_network;
pub mod simulated_users;
pub mod storm;
pub mod user_history;
pub mod wait_oracle;
