# An agent that reaches its controller and what egress.conflist has a route to, and nothing else: its network
# namespace has no default route, and no program in it may add one.
#
# On each node: the CNI plugins `bridge` and `host-local` in client.cni_path, and egress.conflist, with your
# own networks under `routes`, in client.cni_config_dir (/opt/cni/config).
#
#   nomad var put nomad/jobs/jenkins-egress secret=0123...
#   nomad job run -var url=https://jenkins.example/ -var name=linux-1 egress.nomad.hcl

variable "url" {
  type    = string
  default = "https://jenkins.example/"
}

variable "name" {
  type    = string
  default = "linux-1"
}

job "jenkins-egress" {
  type = "service"

  group "agent" {
    network {
      mode = "cni/jenkins-egress"
      # The node's own resolver may be out of reach from in here.
      dns {
        servers = ["192.0.2.53"]
      }
    }

    task "agent" {
      driver = "jenkins-agent"

      config {
        agent {
          url  = var.url
          name = var.name
        }
      }

      template {
        data        = "JENKINS_SECRET={{ with nomadVar \"nomad/jobs/jenkins-egress\" }}{{ .secret }}{{ end }}"
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
