# Agents on demand: the job is registered once, each dispatch starts one agent under the name that it is given.
#
#   nomad var put nomad/jobs/jenkins-on-demand linux-1=0123... linux-2=4567...
#   nomad job run -var url=https://jenkins.example/ on-demand.nomad.hcl
#   nomad job dispatch -meta agent=linux-1 jenkins-on-demand
#
# A dispatched job reads the variable of its parent, so a secret is neither in the job nor in the dispatch.

variable "url" {
  type    = string
  default = "https://jenkins.example/"
}

job "jenkins-on-demand" {
  type = "batch"

  parameterized {
    meta_required = ["agent"]
    payload       = "forbidden"
  }

  group "agent" {
    reschedule {
      attempts  = 0
      unlimited = false
    }

    task "agent" {
      driver = "jenkins-agent"

      config {
        agent {
          url  = var.url
          name = "${NOMAD_META_agent}"
          mode = "one_shot"
        }
      }

      template {
        data        = <<-END
          {{- with nomadVar "nomad/jobs/jenkins-on-demand" }}
          JENKINS_SECRET={{ index . (env "NOMAD_META_agent") }}
          {{- end }}
        END
        destination = "secrets/agent.env"
        env         = true
      }

      resources {
        cpu    = 1000
        memory = 1024
      }
    }
  }
}
