# A pool of permanent agents, linux-0, linux-1, ..., spread over the nodes. The controller has a permanent
# node for each (jenkins.yaml). An agent whose node is lost comes up on another one, under the same name.
#
#   nomad var put nomad/jobs/jenkins-pool linux-0=0123... linux-1=4567... linux-2=89ab...
#   nomad job run -var url=https://jenkins.example/ -var count=3 pool.nomad.hcl

variable "url" {
  type    = string
  default = "https://jenkins.example/"
}

variable "count" {
  type    = number
  default = 3
}

job "jenkins-pool" {
  type = "service"

  # Not two on a node as long as another node has room.
  spread {
    attribute = "${node.unique.id}"
  }

  # An update replaces one agent after the other, and waits for none to become "healthy" by a service check.
  update {
    max_parallel      = 1
    health_check      = "task_states"
    min_healthy_time  = "10s"
    healthy_deadline  = "5m"
    progress_deadline = "10m"
  }

  group "agents" {
    count = var.count

    # The index stays the allocation's own when it is rescheduled, and with it the agent's name.
    task "agent" {
      driver = "jenkins-agent"

      config {
        agent {
          url  = var.url
          name = "linux-${NOMAD_ALLOC_INDEX}"
        }
      }

      template {
        data        = <<-END
          {{- with nomadVar "nomad/jobs/jenkins-pool" }}
          JENKINS_SECRET={{ index . (printf "linux-%s" (env "NOMAD_ALLOC_INDEX")) }}
          {{- end }}
        END
        destination = "secrets/agent.env"
        env         = true
      }

      # Time for a build's last lines when a node is drained.
      kill_timeout = "30s"

      resources {
        cpu    = 1000
        memory = 1024
      }
    }
  }
}
