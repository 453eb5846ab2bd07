"""auditgap"""
