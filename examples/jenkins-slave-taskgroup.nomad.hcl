# The smallest useful Jenkins agent: no image, the node's own /usr, /lib, ... read-only, its newest JDK.
#
# Before the first run, put the agent's secret (shown on the node's page of the controller) where only
# this job can read it:
#
#   nomad var put nomad/jobs/jenkins-slave secret=0123...
#   nomad job run -var url=https://jenkins.example/ -var name=linux-1 jenkins-slave-taskgroup.nomad.hcl
#
# The agent stays connected until the job is stopped. A controller that is down is waited for inside the
# running task; an agent that dies is started again by Nomad's restart policy (block `restart`).

variable "url" {
  type        = string
  default     = "https://jenkins.example/"
  description = "The controller, as its users see it"
}

variable "name" {
  type        = string
  default     = "linux-1"
  description = "The node's name at the controller"
}

job "jenkins-slave" {
  type = "batch"

  group "jenkins-slave-taskgroup" {
    task "agent" {
      driver = "jenkins-agent"

      config {
        agent {
          url  = var.url
          name = var.name
        }
      }

      # JENKINS_SECRET is taken out of the environment by the driver: it reaches neither the command line
      # nor the environment of the agent and its builds, nor a log or the disk.
      template {
        data        = "JENKINS_SECRET={{ with nomadVar \"nomad/jobs/jenkins-slave\" }}{{ .secret }}{{ end }}"
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
