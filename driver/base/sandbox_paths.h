// Paths inside the sandbox that plugin, supervisor and the agent's command line agree on.
#pragma once

namespace jenkins_agent {

// A small tmpfs of its own in every sandbox: root's, readable by the payload's group.
inline constexpr char kRunDir[] = "/run/jenkins-agent";
// JDK argument file: everything behind `java`, the secret too. Written anew before each launch.
inline constexpr char kArgumentsFile[] = "/run/jenkins-agent/args";
// The fetched agent.jar, bound read-only from the task's state directory.
inline constexpr char kJarDir[] = "/run/jenkins-agent/jar";

}  // namespace jenkins_agent
