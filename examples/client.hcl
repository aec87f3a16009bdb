# What a Nomad client needs to run Jenkins agents with this driver: one file and one block.
#
#   install -D -m 755 -t /opt/nomad/plugins build/release/driver/nomad-driver-jenkins-agent   # the .deb has done that
#   nomad agent -config /etc/nomad.d
#
# Add this file to the client's configuration directory, or the blocks to its configuration.

# Every file in here that has a `plugin` block of its name is started by Nomad. Default: <data_dir>/plugins
plugin_dir = "/opt/nomad/plugins"

# The label is the file's name; in jobs the driver is called "jenkins-agent".
plugin "nomad-driver-jenkins-agent" {
  config {
    # Where the driver keeps what must survive its own restart: task records and fetched agent.jars.
    # No secret is ever written there. One Nomad agent per directory.
    state_dir = "/var/lib/nomad-driver-jenkins-agent"

    # Java installations to offer to jobs. Left out: those in the usual places (/usr/lib/jvm, ...).
    # java_homes = ["/opt/jdk-21"]

    # Jobs may run their program as root only when this says so.
    # allow_root = true
  }
}

client {
  enabled = true

  options = {
    # On bare metal without a cloud's metadata service the env_* probes only cost time at the start;
    # where AWS_CA_BUNDLE is set in Nomad's environment, env_aws keeps the agent from starting at all.
    "fingerprint.denylist" = "env_aws,env_gce,env_azure,env_digitalocean"
  }
}
