//! What nodes ask each other beside consensus, as far as the log answers it; the simulation has it, too.

use shoal_cluster::tls::Caller;
use shoal_model::NodeId;
use shoal_proto::raft as proto;
use shoal_proto::raft::peer_service_server::PeerService;
use tonic::{Request, Response, Status};

use super::ConfigLog;

/// That service of one log.
#[derive(Clone)]
pub struct PeerRpc {
    /// What answers.
    pub log: ConfigLog,
}

fn caller<T>(request: &Request<T>) -> Result<NodeId, Status> {
    match request.extensions().get::<Caller>() {
        Some(Caller::Node(id)) => Ok(*id),
        _ => Err(Status::unauthenticated("only nodes")),
    }
}

#[tonic::async_trait]
impl PeerService for PeerRpc {
    async fn propose(
        &self,
        request: Request<proto::ProposeRequest>,
    ) -> Result<Response<proto::ProposeResponse>, Status> {
        let caller = caller(&request)?;
        Box::pin(self.log.answer_propose(caller, request.into_inner(), 1)).await.map(Response::new)
    }

    async fn read_index(
        &self,
        request: Request<proto::ReadIndexRequest>,
    ) -> Result<Response<proto::ReadIndexResponse>, Status> {
        let caller = caller(&request)?;
        Box::pin(self.log.answer_read_index(caller)).await.map(Response::new)
    }

    async fn await_applied(
        &self,
        _request: Request<proto::AwaitAppliedRequest>,
    ) -> Result<Response<proto::AwaitAppliedResponse>, Status> {
        Err(Status::unimplemented("not part of the log"))
    }

    async fn rehearse(
        &self,
        _request: Request<proto::RehearseRequest>,
    ) -> Result<Response<proto::RehearseResponse>, Status> {
        Err(Status::unimplemented("not part of the log"))
    }

    async fn report(
        &self,
        _request: Request<proto::ReportRequest>,
    ) -> Result<Response<proto::ReportResponse>, Status> {
        Err(Status::unimplemented("not part of the log"))
    }

    async fn vouch(
        &self,
        _request: Request<proto::VouchRequest>,
    ) -> Result<Response<proto::VouchResponse>, Status> {
        Err(Status::unimplemented("not part of the log"))
    }

    async fn renew(
        &self,
        _request: Request<proto::RenewRequest>,
    ) -> Result<Response<proto::RenewResponse>, Status> {
        Err(Status::unimplemented("not part of the log"))
    }

    async fn hand_over(
        &self,
        request: Request<proto::HandOverRequest>,
    ) -> Result<Response<proto::HandOverResponse>, Status> {
        caller(&request)?;
        Box::pin(self.log.answer_hand_over(request.get_ref())).await.map(Response::new)
    }

    async fn join(
        &self,
        _request: Request<proto::JoinRequest>,
    ) -> Result<Response<proto::JoinResponse>, Status> {
        Err(Status::unimplemented("not part of the log"))
    }
}
