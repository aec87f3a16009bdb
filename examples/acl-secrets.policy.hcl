# For who stores the agents' secrets, and may not read them again.
#
#   nomad acl policy apply jenkins-secrets acl-secrets.policy.hcl
#   nomad acl token create -name=secrets -policy=jenkins-secrets
#
# The jobs need no policy: a task reads its own job's variables, nomad/jobs/JOB, by its workload identity.

namespace "default" {
  variables {
    path "nomad/jobs/jenkins-*" {
      capabilities = ["write", "list"]
    }
  }
}
