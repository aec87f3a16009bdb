# One HTTPS port is all that this agent needs of its controller: the channel is a WebSocket, the certificate is
# checked against a CA of one's own. (The controller must be Jenkins 2.217 or later.)
#
#   nomad var put nomad/jobs/jenkins-websocket secret=0123... ca=@ca.pem
#   nomad job run -var url=https://jenkins.example/ -var name=linux-1 websocket-tls.nomad.hcl

variable "url" {
  type    = string
  default = "https://jenkins.example/"
}

variable "name" {
  type    = string
  default = "linux-1"
}

job "jenkins-websocket" {
  type = "service"

  group "agent" {
    task "agent" {
      driver = "jenkins-agent"

      config {
        agent {
          url        = var.url
          name       = var.name
          web_socket = true
          ca_file    = "/local/ca.pem"
        }
      }

      template {
        data        = "JENKINS_SECRET={{ with nomadVar \"nomad/jobs/jenkins-websocket\" }}{{ .secret }}{{ end }}"
        destination = "secrets/agent.env"
        env         = true
      }

      # Not secret: what the agent and this driver trust beside the JDK's and the node's own list.
      template {
        data        = "{{ with nomadVar \"nomad/jobs/jenkins-websocket\" }}{{ .ca }}{{ end }}"
        destination = "local/ca.pem"
      }

      resources {
        cpu    = 1000
        memory = 1024
      }
    }
  }
}
