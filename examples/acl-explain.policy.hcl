# For people and programs that ask `nomad-driver-jenkins-agent explain`. It changes nothing.
#
#   nomad acl policy apply jenkins-explain acl-explain.policy.hcl
#   nomad acl token create -name=explain -policy=jenkins-explain -ttl=24h

namespace "default" {
  # plan-job: remedies are checked by Nomad's own plan. Nomad before 1.11.2 does not know it and refuses the policy;
  # leave it out there, and remedies are marked unchecked.
  capabilities = ["read-job", "plan-job"]
}

# Whose allocations hold the room. Without it those of other namespaces are missing from the sums, and explain says
# so. It shows job files; with the Nomad plugin these have the agents' secrets in them.
namespace "*" {
  capabilities = ["read-job"]
}

# The nodes, their drivers, and what is really used on them.
node {
  policy = "read"
}

# Whether memory_max and preemption count. Without it explain says that it does not know.
operator {
  policy = "read"
}
