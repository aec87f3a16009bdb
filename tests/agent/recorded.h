// Lines as real agents print them. kOld...: hudson-remoting 3.0.3 on OpenJDK 17; its usage texts,
// refused connections and the JDK 25 failure are recorded, the rest follows the recordings
// described for it. kCurrent...: written after the sources of the remoting library of 2026. Stack
// traces are cut short.
#pragma once

namespace jenkins_agent::recorded {

inline constexpr char kSecurityManagerWarning[] =
    "WARNING: A terminally deprecated method in java.lang.System has been called\n"
    "WARNING: System::setSecurityManager has been called by hudson.remoting.jnlp.Main\n"
    "WARNING: Please consider reporting this to the maintainers of hudson.remoting.jnlp.Main\n"
    "WARNING: System::setSecurityManager will be removed in a future release\n";

inline constexpr char kOldConnected[] =
    "Nov 21, 2026 11:13:15 PM hudson.remoting.jnlp.Main$CuiListener <init>\n"
    "INFO: Hudson agent is running in headless mode.\n"
    "Nov 21, 2026 11:13:15 PM hudson.remoting.jnlp.Main$CuiListener status\n"
    "INFO: Locating server among [http://127.0.0.1:18080/]\n"
    "Nov 21, 2026 11:13:15 PM hudson.remoting.jnlp.Main$CuiListener status\n"
    "INFO: Connecting to 127.0.0.1:18097\n"
    "Nov 21, 2026 11:13:15 PM hudson.remoting.jnlp.Main$CuiListener status\n"
    "INFO: Handshaking\n"
    "Nov 21, 2026 11:13:15 PM hudson.remoting.jnlp.Main$CuiListener status\n"
    "INFO: Connected\n";

inline constexpr char kOldOneLineRefusedConnection[] =
    "2026-11-21T23:13:15.688+0000|INFO|hudson.remoting.jnlp.Main$CuiListener <init>|Hudson agent "
    "is running in headless mode.\n"
    "2026-11-21T23:13:15.714+0000|INFO|hudson.remoting.jnlp.Main$CuiListener status|Locating "
    "server among [http://127.0.0.1:9/]\n"
    "2026-11-21T23:13:15.727+0000|SEVERE|hudson.remoting.jnlp.Main$CuiListener error|Failed to "
    "connect to http://127.0.0.1:9/tcpSlaveAgentListener/: Connection refused\n"
    "java.io.IOException: Failed to connect to http://127.0.0.1:9/tcpSlaveAgentListener/: "
    "Connection refused\n"
    "\tat hudson.remoting.Engine.run(Engine.java:205)\n";

inline constexpr char kOldRefusedConnection[] =
    "Nov 21, 2026 11:13:15 PM hudson.remoting.jnlp.Main$CuiListener <init>\n"
    "INFO: Hudson agent is running in headless mode.\n"
    "Nov 21, 2026 11:13:15 PM hudson.remoting.jnlp.Main$CuiListener status\n"
    "INFO: Locating server among [http://127.0.0.1:9/]\n"
    "Nov 21, 2026 11:13:15 PM hudson.remoting.jnlp.Main$CuiListener error\n"
    "SEVERE: Failed to connect to http://127.0.0.1:9/tcpSlaveAgentListener/: Connection refused\n"
    "java.io.IOException: Failed to connect to http://127.0.0.1:9/tcpSlaveAgentListener/: "
    "Connection refused\n";

inline constexpr char kOldStarting503[] =
    "INFO: Hudson agent is running in headless mode.\n"
    "INFO: Locating server among [http://127.0.0.1:18080/]\n"
    "SEVERE: http://127.0.0.1:18080/tcpSlaveAgentListener/ is invalid: 503 Service Unavailable\n";

inline constexpr char kOldPortOff404[] =
    "INFO: Hudson agent is running in headless mode.\n"
    "INFO: Locating server among [http://127.0.0.1:18080/]\n"
    "SEVERE: http://127.0.0.1:18080/tcpSlaveAgentListener/ is invalid: 404 Not Found\n";

inline constexpr char kOldWrongSecret[] =
    "INFO: Hudson agent is running in headless mode.\n"
    "INFO: Locating server among [http://127.0.0.1:18080/]\n"
    "INFO: Connecting to 127.0.0.1:18097\n"
    "INFO: Handshaking\n"
    "SEVERE: The server rejected the connection: Unauthorized access\n"
    "java.lang.Exception: The server rejected the connection: Unauthorized access\n";

inline constexpr char kOldUnknownName[] =
    "INFO: Handshaking\n"
    "SEVERE: The server rejected the connection: No such slave: linux-1\n";

inline constexpr char kOldNameInUse[] =
    "INFO: Handshaking\n"
    "SEVERE: The server rejected the connection: linux-1 is already connected to this master. "
    "Rejecting this connection.\n";

inline constexpr char kOldUsage[] =
    "\"-foo\" is not a valid option\n"
    "java -jar slave.jar [options...] <secret key> <slave name>\n"
    " -credentials USER:PASSWORD : HTTP BASIC AUTH header to pass in for making HTTP\n"
    "                              requests.\n";

inline constexpr char kOldUsageQuotesArguments[] =
    "two arguments required, but got [x, 0123456789abcdef, linux-1]\n"
    "java -jar slave.jar [options...] <secret key> <slave name>\n";

inline constexpr char kOldOnJava25[] =
    "Exception in thread \"main\" java.lang.UnsupportedOperationException: Setting a Security "
    "Manager is not supported\n"
    "\tat java.base/java.lang.System.setSecurityManager(System.java:304)\n"
    "\tat hudson.remoting.jnlp.Main._main(Main.java:94)\n";

inline constexpr char kCurrentConnected[] =
    "Nov 21, 2026 11:20:01 PM org.jenkinsci.remoting.engine.WorkDirManager initializeWorkDir\n"
    "INFO: Using /local/agent/remoting as a remoting work directory\n"
    "Nov 21, 2026 11:20:01 PM hudson.remoting.Launcher createEngine\n"
    "INFO: Setting up agent: linux-1\n"
    "Nov 21, 2026 11:20:01 PM hudson.remoting.Engine startEngine\n"
    "INFO: Using Remoting version: 3386.v1\n"
    "Nov 21, 2026 11:20:01 PM hudson.remoting.Launcher$CuiListener status\n"
    "INFO: Locating server among [http://127.0.0.1:8080/]\n"
    "Nov 21, 2026 11:20:01 PM hudson.remoting.Launcher$CuiListener status\n"
    "INFO: Agent discovery successful\n"
    "  Agent address: 127.0.0.1\n"
    "  Agent port:    50000\n"
    "  Identity:      aa:bb\n"
    "INFO: Handshaking\n"
    "INFO: Connecting to 127.0.0.1:50000\n"
    "INFO: Trying protocol: JNLP4-connect\n"
    "INFO: Remote identity confirmed: aa:bb\n"
    "INFO: Connected\n";

inline constexpr char kCurrentUnreachable[] =
    "INFO: Setting up agent: linux-1\n"
    "INFO: Locating server among [http://127.0.0.1:8080/]\n"
    "INFO: Could not locate server among [http://127.0.0.1:8080/]; waiting 10 seconds before "
    "retry\n"
    "java.io.IOException: Failed to connect to http://127.0.0.1:8080/tcpSlaveAgentListener/: "
    "Connection refused\n"
    "\tat org.jenkinsci.remoting.engine.JnlpAgentEndpointResolver.resolve(X.java:216)\n"
    "Caused by: java.net.ConnectException: Connection refused\n";

inline constexpr char kCurrentWrongSecret[] =
    "INFO: Handshaking\n"
    "INFO: Connecting to 127.0.0.1:50000\n"
    "INFO: [JNLP4-connect connection to localhost/127.0.0.1:50000] Local headers refused by "
    "remote: Authorization failure\n"
    "INFO: Protocol JNLP4-connect encountered an unexpected exception\n"
    "java.util.concurrent.ExecutionException: "
    "org.jenkinsci.remoting.protocol.impl.ConnectionRefusalException: Authorization failure\n"
    "INFO: reconnect rejected, sleeping 10s: \n"
    "java.lang.Exception: The server rejected the connection: None of the protocols were "
    "accepted\n";

inline constexpr char kCurrentUnknownName[] =
    "INFO: [JNLP4-connect connection to localhost/127.0.0.1:50000] Local headers refused by "
    "remote: Unknown client name: linux-1\n";

// jenkins#26338; a controller behind a proxy.
inline constexpr char kCurrentWebSocketRefused[] =
    R"(WARNING: Did not receive X-Remoting-Capability header
Feb 19, 2026 1:59:11 PM hudson.remoting.Launcher$CuiListener status
INFO: Failed to connect: Handshake error.
Feb 19, 2026 1:59:11 PM hudson.remoting.Launcher$CuiListener status
INFO: Waiting 1 second before retry
)";

inline constexpr char kCurrentNameInUse[] =
    "INFO: [JNLP4-connect connection to localhost/127.0.0.1:50000] Local headers refused by "
    "remote: linux-1 is already connected to this controller. Rejecting this connection.\n";

}  // namespace jenkins_agent::recorded
