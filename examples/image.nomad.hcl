# An agent on an image of a registry, pinned by its digest: every start, on whichever node, is the same file system.
# The image stays on a node that has run it; the affinity prefers nodes that fetched it in advance.
#
#   nomad var put nomad/jobs/jenkins-image secret=0123...
#   nomad job run -var url=https://jenkins.example/ -var name=linux-1 -var image=registry.example/ci/agent@sha256:... image.nomad.hcl
#
# On the clients, in the plugin's `config`, with the same name:
#
#   images {
#     pre_pull = ["registry.example/ci/agent@sha256:..."]
#   }
#
# The image brings its own Java or runs on the node's (agent-image/Dockerfile is a recipe). A login for the registry
# belongs to the plugin's images.registry block, or to an `auth` block here.

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

variable "image" {
  type        = string
  default     = "registry.example/ci/agent@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
  description = "As in the plugin's images.pre_pull; one without tag and digest is NAME:latest"
}

locals {
  # What a node calls the attribute of an image that it has.
  image_key = regex_replace(lower(var.image), "[^a-z0-9-]", "_")
}

job "jenkins-image" {
  type = "batch"

  group "agents" {
    affinity {
      attribute = "$${attr.unique.driver.jenkins-agent.image.${local.image_key}}"
      operator  = "regexp" # an affinity has no "is_set"
      value     = "."
      weight    = 100
    }

    task "agent" {
      driver = "jenkins-agent"

      config {
        image = var.image

        agent {
          url  = var.url
          name = var.name
        }
      }

      template {
        data        = "JENKINS_SECRET={{ with nomadVar \"nomad/jobs/jenkins-image\" }}{{ .secret }}{{ end }}"
        destination = "secrets/agent.env"
        env         = true
      }

      resources {
        cpu    = 500
        memory = 512
      }
    }
  }
}
