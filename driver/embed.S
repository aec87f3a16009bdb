// The supervisor, the tools program and the exporter inside the plugin's own file. At run time they
// are started from sealed memfds, so that nothing has to be installed or unpacked beside the plugin.
.section .rodata
.balign 16
.global embedded_supervisor_begin
.global embedded_supervisor_end
embedded_supervisor_begin:
.incbin SUPERVISOR_FILE
embedded_supervisor_end:
.balign 16
.global embedded_tools_begin
.global embedded_tools_end
embedded_tools_begin:
.incbin TOOLS_FILE
embedded_tools_end:
.balign 16
.global embedded_exporter_begin
.global embedded_exporter_end
embedded_exporter_begin:
.incbin EXPORTER_FILE
embedded_exporter_end:
.section .note.GNU-stack,"",%progbits
