//! Tests of the core, in virtual time.

mod abuse;
mod costs;
mod floods;
mod hidden;
mod list_subscriptions;
mod lists;
mod loading;
mod logins;
mod mutations;
mod oprf_seeds;
mod pages;
mod query_budget;
mod quota_model;
mod quotas;
mod replay;
mod resumption;
mod sessions;
mod sharing;
mod stats;
mod subscriptions;
