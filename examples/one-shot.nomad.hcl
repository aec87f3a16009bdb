# An agent for one build: the task is complete, with exit code 0, when the controller has closed its channel
# (the node was removed, or disconnected after its build). A controller that is only away is waited for.
#
#   nomad var put nomad/jobs/jenkins-one-shot secret=0123...
#   nomad job run -var url=https://jenkins.example/ -var name=linux-once one-shot.nomad.hcl

variable "url" {
  type    = string
  default = "https://jenkins.example/"
}

variable "name" {
  type    = string
  default = "linux-once"
}

job "jenkins-one-shot" {
  type = "batch"

  group "agent" {
    # What failed is not tried again: the build that it was for is gone.
    restart {
      attempts = 0
      mode     = "fail"
    }
    reschedule {
      attempts  = 0
      unlimited = false
    }

    task "agent" {
      driver = "jenkins-agent"

      config {
        agent {
          url  = var.url
          name = var.name
          mode = "one_shot"
        }
      }

      template {
        data        = "JENKINS_SECRET={{ with nomadVar \"nomad/jobs/jenkins-one-shot\" }}{{ .secret }}{{ end }}"
        destination = "secrets/agent.env"
        env         = true
      }

      resources {
        cpu    = 500
        memory = 768
      }
    }
  }
}
