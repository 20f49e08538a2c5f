//! What most stories of a whole site begin with.

use anyhow::Result;

use crate::HOST;
use crate::certificate::SelfSigned;
use crate::cluster::Cluster;
use crate::origin::Origin;
use crate::site::SiteFile;

/// A cluster that serves one origin, whose answers may be kept for a minute, in clear text and over TLS.
pub struct Scene {
    /// Its nodes run `site`.
    pub cluster: Cluster,
    /// The only endpoint of the upstream `shop`.
    pub origin: Origin,
    /// Route, upstream and certificate are called `shop`.
    pub site: SiteFile,
    /// That of the TLS listener, for [`HOST`].
    pub certificate: SelfSigned,
}

impl Scene {
    /// Puts such a site in force.
    pub async fn set(cluster: Cluster) -> Result<Self> {
        let origin = Origin::of_patterns(500, "max-age=60").await?;
        let certificate = SelfSigned::create(cluster.dir(), &[HOST])?;
        let site = SiteFile::new().cached("shop", &[origin.endpoint()]).secure_by("shop", &certificate);
        cluster.put_in_force(&site).await?;
        Ok(Self { cluster, origin, site, certificate })
    }
}
