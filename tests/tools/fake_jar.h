// Jars made for tests: zip files with the entries given.
#pragma once

#include <archive.h>
#include <archive_entry.h>

#include <map>
#include <string>

namespace jenkins_agent {

inline std::string MakeJar(const std::map<std::string, std::string>& entries) {
  std::string out(4 << 20, '\0');
  size_t used = 0;
  archive* writer = ::archive_write_new();
  ::archive_write_set_format_zip(writer);
  ::archive_write_open_memory(writer, out.data(), out.size(), &used);
  for (const auto& [name, content] : entries) {
    archive_entry* entry = ::archive_entry_new();
    ::archive_entry_set_pathname(entry, name.c_str());
    ::archive_entry_set_size(entry, content.size());
    ::archive_entry_set_filetype(entry, AE_IFREG);
    ::archive_write_header(writer, entry);
    ::archive_write_data(writer, content.data(), content.size());
    ::archive_entry_free(entry);
  }
  ::archive_write_close(writer);
  ::archive_write_free(writer);
  out.resize(used);
  return out;
}

// The head of a class file and some string constants.
inline std::string ClassFile(int major, std::initializer_list<std::string> constants) {
  std::string content("\xCA\xFE\xBA\xBE\0\0\0", 7);
  content += static_cast<char>(major);
  for (const std::string& constant : constants) {
    content += '\x01';
    content += '\0';
    content += static_cast<char>(constant.size());
    content += constant;
  }
  return content;
}

inline std::map<std::string, std::string> CurrentAgentEntries() {
  return {{"META-INF/MANIFEST.MF",
           "Manifest-Version: 1.0\r\nMain-Class: hudson.remoting.Launcher\r\n"
           "Version: 3386.v1\r\n\r\nName: x\r\nVersion: wrong\r\n"},
          {"hudson/remoting/Launcher.class", ClassFile(61, {"-url", "-secret", "-name"})},
          {"hudson/remoting/jnlp/Main.class", ClassFile(61, {"-url"})},
          {"org/jenkinsci/remoting/engine/JnlpProtocol4Handler.class", "x"}};
}

inline std::string CurrentAgentJar() { return MakeJar(CurrentAgentEntries()); }

inline std::string SignedAgentJar() {
  std::map<std::string, std::string> entries = CurrentAgentEntries();
  entries.insert({{"META-INF/SIGNER.SF", "Signature-Version: 1.0\r\n"},
                  {"META-INF/SIGNER.RSA", "what only the JVM reads"}});
  return MakeJar(entries);
}

}  // namespace jenkins_agent
