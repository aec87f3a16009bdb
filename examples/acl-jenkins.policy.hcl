# For the controller with the Nomad plugin: it registers, lists and stops its agents' jobs, and nothing else.
#
#   nomad acl policy apply jenkins-controller acl-jenkins.policy.hcl
#   nomad acl token create -name=jenkins -policy=jenkins-controller

namespace "default" {
  # Nomad before 1.11.2 knows submit-job only, in place of register-job and deregister-job.
  # For templates in HCL add parse-job; for the plugin's "validate" button plan-job.
  capabilities = ["list-jobs", "register-job", "deregister-job"]
}

# The plugin's "test connection" button asks /v1/agent/self and needs more than agents do:
#
# agent {
#   policy = "read"
# }
